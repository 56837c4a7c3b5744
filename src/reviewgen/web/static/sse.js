/** Server-sent events of a response, as `fetch` returns it. Touches no page. */

/**
 * Yields the data of each event.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* readEvents(body) {
  let waiting = "";
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      waiting += decoder.decode(value, { stream: !done });
      const events = waiting.split(/\r?\n\r?\n/);
      waiting = events.pop();
      for (const event of events) {
        const data = dataOf(event);
        if (data) yield data;
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {}); // so that the server stops
  }
}

/** Returns the lines of data of an event; comments, which keep a connection open, have none. */
function dataOf(event) {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
}
