/**
 * The filters of sampling: top-k, top-p and min-p on unnormalised probabilities, in place; what they drop becomes zero.
 *
 * The same order of operations as in `reviewgen.compiled.sampling`, so that both keep the same tokens. Fan et al. 2018 (top-k),
 * Holtzman et al. 2020 (top-p), Nguyen et al. 2024 (min-p).
 */

/** Applies the filters that are on; 0 switches topK off, 1 topP, 0 minP. */
export function filterProbs(probs, { topK, topP, minP }) {
  if ((topK > 0 && topK < probs.length) || topP < 1) filterTopKTopP(probs, topK > 0 ? topK : probs.length, topP);
  if (minP > 0) filterMinP(probs, minP);
}

/** Returns the sum of numbers, added in order. */
export function sum(numbers) {
  let total = 0;
  for (let place = 0; place < numbers.length; place++) total += numbers[place];
  return total;
}

/** Returns the largest of numbers. */
export function largestOf(numbers) {
  let largest = numbers[0];
  for (let place = 1; place < numbers.length; place++) if (numbers[place] > largest) largest = numbers[place];
  return largest;
}

/** Zeroes the tokens that are less than minP times as probable as the most probable one. */
function filterMinP(probs, minP) {
  const threshold = minP * largestOf(probs);
  for (let token = 0; token < probs.length; token++) if (probs[token] < threshold) probs[token] = 0;
}

/** Keeps the topK most probable tokens, ties included, then the smallest set of these with probability topP. */
function filterTopKTopP(probs, topK, topP) {
  let size = probs.length;
  const heap = Int32Array.from(probs, (_, token) => token);
  for (let place = (size >> 1) - 1; place >= 0; place--) siftDown(heap, size, place, probs);
  let total = topK >= size ? sum(probs) : Infinity; // of what top-k leaves; not known yet where it drops some
  let [kept, before] = [0, 0];
  while (size > 0 && before < topP * total && (kept < topK || probs[heap[0]] === probs[heap[size]])) {
    size--;
    [heap[0], heap[size]] = [heap[size], heap[0]]; // kept tokens stand behind the heap, the least probable first
    before += probs[heap[size]];
    kept++;
    siftDown(heap, size, 0, probs);
  }
  total = total === Infinity ? before : total;
  before = 0;
  for (let place = heap.length - 1; place >= 0; place--) {
    const prob = probs[heap[place]];
    if (place < size || before >= topP * total) probs[heap[place]] = 0;
    before += prob;
  }
}

/** Restores the order of a heap whose top is the most probable token, of equals that of the smallest id. */
function siftDown(heap, size, place, probs) {
  for (;;) {
    let best = place;
    for (let child = 2 * place + 1; child < Math.min(2 * place + 3, size); child++) {
      const [a, b] = [heap[child], heap[best]];
      if (probs[a] > probs[b] || (probs[a] === probs[b] && a < b)) best = child;
    }
    if (best === place) return;
    [heap[place], heap[best]] = [heap[best], heap[place]];
    place = best;
  }
}
