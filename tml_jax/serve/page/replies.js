// How long the model takes from the end of what a person says to its first sound. Times are in milliseconds.

const LOUD = 0.03; // peak above which the user speaks
const AUDIBLE = 0.003; // peak above which the model does
const LONGEST = 5000; // silence after which its sound is no reply
const PAUSE = 300; // of the model, before what it says is a reply

export class Replies {
  constructor() {
    this.ended = null; // when the user was last loud; null once the model has replied
    this.quiet = -Infinity; // since when the model is; null while it speaks
  }

  user(peak, now) {
    if (peak > LOUD) this.ended = now;
  }

  // The level of the model's sound → milliseconds since the user stopped, when a reply begins; otherwise null.
  model(peak, now) {
    if (peak < AUDIBLE) {
      this.quiet ??= now;
      return null;
    }
    const begins = this.quiet !== null && now - this.quiet > PAUSE;
    this.quiet = null;
    if (!begins || this.ended === null) return null;
    const delay = now - this.ended;
    this.ended = null;
    return delay < LONGEST ? delay : null;
  }
}
