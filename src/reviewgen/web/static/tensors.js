/** Tensors of a model as steppers take them, and the product that networks spend their time in. Imports nothing. */

const PANEL = 8; // rows that are summed up together: as many as stay in registers

/** Returns a tensor: its shape, its numbers row by row in a typed array, and `matrix()`, which prepares products. */
export function createTensor(shape, data) {
  return { shape, data, matrix: () => new Matrix(shape, data) };
}

/** A matrix in panels of 8 rows, column by column, padded with zeros: products then read weights in the order in memory. */
class Matrix {
  constructor([rows, columns], data) {
    const panels = new Float32Array(Math.ceil(rows / PANEL) * PANEL * columns);
    for (let row = 0; row < rows; row++) {
      let place = (row - (row % PANEL)) * columns + (row % PANEL);
      for (let k = 0; k < columns; k++, place += PANEL) panels[place] = data[row * columns + k];
    }
    Object.assign(this, { rows, columns, panels });
  }

  /** Returns a bias plus the product of the matrix and a vector. */
  product(vector, bias = new Float32Array(this.rows)) {
    return this.addProduct(vector, bias.slice());
  }

  /** Adds the product of the matrix and a vector to `sums`, and returns it. */
  addProduct(vector, sums) {
    const { rows, columns, panels } = this;
    for (let row = 0, place = 0; row < rows; row += PANEL) {
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
      for (let k = 0; k < columns; k++, place += PANEL) {
        const x = vector[k];
        s0 += panels[place] * x;
        s1 += panels[place + 1] * x;
        s2 += panels[place + 2] * x;
        s3 += panels[place + 3] * x;
        s4 += panels[place + 4] * x;
        s5 += panels[place + 5] * x;
        s6 += panels[place + 6] * x;
        s7 += panels[place + 7] * x;
      }
      sums[row] += s0; // an index beyond the end of a typed array is ignored
      sums[row + 1] += s1;
      sums[row + 2] += s2;
      sums[row + 3] += s3;
      sums[row + 4] += s4;
      sums[row + 5] += s5;
      sums[row + 6] += s6;
      sums[row + 7] += s7;
    }
    return sums;
  }
}
