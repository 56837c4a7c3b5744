/** Tensors of a model as steppers take them, and the product that networks spend their time in. Imports nothing. */

const PANEL = 32; // rows that are summed up together: 8 registers of 4, so that an addition seldom waits for the one before
let kernel; // compiled for the first matrix: the page of a server has none, and its policy allows no WebAssembly

/** Returns a tensor: its shape, its numbers row by row in a typed array, and `matrix()`, which prepares products. */
export function createTensor(shape, data) {
  return { shape, data, matrix: () => new Matrix(shape, data) };
}

/**
 * A matrix in panels of 32 rows, column by column, padded with zeros: products then read weights in the order in memory. Behind
 * the panels, the memory has places for a vector and for its products with all rows.
 */
class Matrix {
  constructor([rows, columns], data) {
    kernel ??= compileKernel();
    const height = Math.ceil(rows / PANEL) * PANEL;
    const [vectorAt, productsAt] = [height * columns, height * columns + columns];
    const memory = new WebAssembly.Memory({ initial: Math.ceil((4 * (productsAt + height)) / 65536) });
    const numbers = new Float32Array(memory.buffer);
    for (let row = 0; row < rows; row++) {
      let place = (row - (row % PANEL)) * columns + (row % PANEL);
      for (let k = 0; k < columns; k++, place += PANEL) numbers[place] = data[row * columns + k];
    }
    const { multiply } = new WebAssembly.Instance(kernel, { "": { memory } }).exports;
    Object.assign(this, { rows, columns, numbers, vectorAt, productsAt, multiply });
  }

  /** Returns a bias plus the product of the matrix and a vector. */
  product(vector, bias = new Float32Array(this.rows)) {
    return this.addProduct(vector, bias.slice());
  }

  /** Adds the product of the matrix and a vector to `sums`, and returns it. */
  addProduct(vector, sums) {
    const { rows, columns, numbers, vectorAt, productsAt, multiply } = this;
    numbers.set(vector, vectorAt);
    for (let row = 0; row < rows; row += PANEL) multiply(4 * row * columns, 4 * vectorAt, 4 * productsAt, 4 * (productsAt + row));
    for (let row = 0; row < rows; row++) sums[row] += numbers[productsAt + row];
    return sums;
  }
}

/**
 * Returns the WebAssembly module (core specification 2.0) of `multiply(panel, x, end, products)`: the products of a panel and the
 * vector from address x to `end`, of one number or more. Locals 0 to 3 are these, 4 a number of the vector, 5 to 12 sums of 4 rows.
 */
function compileKernel() {
  const sums = Array.from({ length: PANEL / 4 }, (_, number) => [5 + number, 16 * number]); // the local, and its place in bytes
  const body = [
    1, 9, 0x7b, // 9 locals: v128
    0x03, 0x40, // loop
    0x20, 1, 0xfd, 0x09, 2, 0, 0x21, 4, // local.get x, v128.load32_splat, local.set number
    ...sums.flatMap(([sum, place]) => [
      0x20, sum, 0x20, 4, 0x20, 0, // local.get sum, local.get number, local.get panel
      0xfd, 0x00, 4, place, 0xfd, 0xe6, 1, // v128.load place, f32x4.mul
      0xfd, 0xe4, 1, 0x21, sum, // f32x4.add, local.set sum
    ]),
    0x20, 0, 0x41, 0x80, 1, 0x6a, 0x21, 0, // local.get panel, i32.const 128, i32.add, local.set panel
    0x20, 1, 0x41, 4, 0x6a, 0x22, 1, // local.get x, i32.const 4, i32.add, local.tee x
    0x20, 2, 0x47, 0x0d, 0, 0x0b, // local.get end, i32.ne, br_if loop, end
    ...sums.flatMap(([sum, place]) => [0x20, 3, 0x20, sum, 0xfd, 0x0b, 4, place]), // local.get products, local.get sum, v128.store
    0x0b, // end
  ];
  const name = (text) => [text.length, ...new TextEncoder().encode(text)];
  const section = (id, bytes) => [id, (bytes.length & 127) | 128, bytes.length >> 7, ...bytes]; // the size in LEB128
  const code = [
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...section(1, [1, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 0]), // types: (i32, i32, i32, i32) -> ()
    ...section(2, [1, ...name(""), ...name("memory"), 2, 0, 0]), // imports: a memory, of 0 pages or more
    ...section(3, [1, 0]), // functions: one, of type 0
    ...section(7, [1, ...name("multiply"), 0, 0]), // exports: function 0
    ...section(10, section(1, body)), // code: 1 body
  ];
  try {
    return new WebAssembly.Module(Uint8Array.from(code));
  } catch (cause) {
    throw new Error("This browser cannot run the model: it needs WebAssembly with SIMD, which may be switched off.", { cause });
  }
}
