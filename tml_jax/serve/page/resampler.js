// Sound of any rate as sound of another, piece by piece: a windowed sinc whose positions are exact fractions, so that
// it never drifts.

const CROSSINGS = 16; // of zero, on each side: 1 ms of delay at 16 kHz
const PASS = 0.92; // of the lower Nyquist frequency

function divisor(a, b) {
  return b ? divisor(b, a % b) : a;
}

function kernel(from, to) {
  const common = divisor(from, to);
  const phases = to / common;
  const band = PASS * Math.min(1, to / from);
  const half = Math.ceil(CROSSINGS / band);
  const rows = [];
  for (let phase = 0; phase < phases; phase++) {
    const row = new Float32Array(2 * half);
    let sum = 0;
    for (let tap = 0; tap < 2 * half; tap++) {
      const x = tap - half + 1 - phase / phases;
      const window = Math.abs(x) < half ? 0.5 + 0.5 * Math.cos((Math.PI * x) / half) : 0;
      row[tap] = window * (x === 0 ? 1 : Math.sin(Math.PI * band * x) / (Math.PI * band * x));
      sum += row[tap];
    }
    rows.push(row.map((value) => value / sum));
  }
  return { rows, half, phases, step: from / common };
}

export class Resampler {
  // from, to: whole samples a second.
  constructor(from, to) {
    this.same = from === to;
    Object.assign(this, kernel(from, to));
    this.held = new Float32Array(this.half);
    this.place = 0; // of the next sample that comes out, in phases, from held[half - 1] on
  }

  // The next samples in (Float32Array) → the samples that come out of them.
  push(samples) {
    if (this.same) return samples.slice();
    const all = new Float32Array(this.held.length + samples.length);
    all.set(this.held);
    all.set(samples, this.held.length);
    const out = [];
    let first = Math.floor(this.place / this.phases);
    while (first + 2 * this.half <= all.length) {
      const row = this.rows[this.place % this.phases];
      let sum = 0;
      for (let tap = 0; tap < row.length; tap++) sum += row[tap] * all[first + tap];
      out.push(sum);
      this.place += this.step;
      first = Math.floor(this.place / this.phases);
    }
    const gone = Math.min(first, all.length);
    this.held = all.slice(gone);
    this.place -= gone * this.phases;
    return Float32Array.from(out);
  }
}
