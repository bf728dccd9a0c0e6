// A short queue of the model's sound. Holds back the first piece a little, so that the next arrives before it ends.

const LEAST_CUSHION = 960; // samples at 24 kHz: 40 ms
const MOST_CUSHION = 2400;
const LONGEST = 14400; // a voice that lags more than 600 ms behind leaves words out
// What a voice may still say after it yields: 150 ms, so that with the way to the ear it is silent within 200. Less
// would cut off the end of what it says by itself, whenever sound that came unevenly waits longer than the cushion.
const KEPT_AT_YIELD = 3600;
const FADE = 120;
const REPORT = 480; // samples between two reports: 20 ms

// Tells: began, a piece that sounds first now; dropped, one that will not sound at all; and of each piece of speech in the
// end how many of its samples have been played.
class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.pieces = []; // {id, samples, at, speech}
    this.wait = 0;
    this.cushion = LEAST_CUSHION;
    this.peak = 0;
    this.since = 0;
    this.port.onmessage = ({ data }) => this.take(data);
  }

  get length() {
    return this.pieces.reduce((sum, piece) => sum + piece.samples.length - piece.at, this.wait);
  }

  take({ id, samples, speech, yields, clear }) {
    if (clear) this.drop(this.pieces.splice(0));
    if (yields) this.cut(KEPT_AT_YIELD);
    if (!samples) return;
    if (!this.pieces.length) this.wait = this.cushion;
    this.port.postMessage({ waits: this.length });
    this.pieces.push({ id, samples, at: 0, speech });
    while (this.length > LONGEST) this.drop([this.pieces.shift()]);
  }

  // Pieces that will not be heard, or no further.
  drop(pieces) {
    for (const piece of pieces) {
      if (piece.at === 0) this.port.postMessage({ dropped: piece.id });
      this.end(piece);
    }
  }

  end({ id, at, speech }) {
    if (speech) this.port.postMessage({ played: id, samples: at });
  }

  // Ends the sound after `kept` samples, not with a click.
  cut(kept) {
    let left = Math.max(0, kept - this.wait);
    for (const [index, piece] of this.pieces.entries()) {
      const here = piece.samples.length - piece.at;
      if (here > left) {
        const end = piece.at + left;
        const fade = Math.min(FADE, left);
        for (let i = 0; i < fade; i++) piece.samples[end - 1 - i] *= i / fade;
        piece.samples = piece.samples.subarray(0, end);
        this.drop(this.pieces.splice(left > 0 ? index + 1 : index));
        return;
      }
      left -= here;
    }
  }

  process(inputs, [[out]]) {
    for (let i = 0; i < out.length; i++) out[i] = this.next();
    for (const sample of out) this.peak = Math.max(this.peak, Math.abs(sample));
    this.since += out.length;
    if (this.since >= REPORT) {
      this.port.postMessage({ peak: this.peak });
      this.since = this.peak = 0;
    }
    return true;
  }

  next() {
    if (this.wait > 0) {
      this.wait--;
      return 0;
    }
    const piece = this.pieces[0];
    if (!piece) return 0;
    if (piece.at === 0) this.port.postMessage({ began: piece.id });
    const sample = piece.samples[piece.at++];
    if (piece.at === piece.samples.length) {
      this.end(this.pieces.shift());
      // The next piece of the same voice should be here by now: give later ones more time.
      if (!this.pieces.length && piece.speech) this.cushion = Math.min(this.cushion + REPORT, MOST_CUSHION);
    }
    return sample;
  }
}

registerProcessor("player", Player);
