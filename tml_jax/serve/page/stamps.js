// Which place in the session's time the microphone's sound takes, and how long the answer to it takes.
// Times are in milliseconds, offsets in samples at 16 kHz.

const WINDOW = 3200; // samples of a micro-turn
const SLACK = 1280; // 80 ms, for sound that must catch up: the server waits 60 for what is on its way
const MOST_LEAD = 6400; // a microphone whose clock is fast would add delay without end
const LOOKS = 50; // micro-turns between two looks at the lead

export class Stamps {
  constructor() {
    this.next = 0;
    this.sent = []; // {end, at} of pieces whose answer is still to come
    this.turn = null;
    this.late = 0;
    this.behind = 0; // micro-turns one after the other in which sound came late
    this.leads = [];
  }

  // A piece of `count` samples that is sent now → the offset of its first sample.
  place(count, now) {
    // Time has gone on without this sound: the microphone began after the session, or the browser paused it. One
    // late micro-turn is only a hitch.
    if (this.turn && (this.next === 0 || this.behind > 1)) this.skip(now);
    const offset = this.next;
    this.next += count;
    this.sent.push({ end: this.next, at: now });
    return offset;
  }

  // Goes on from now.
  skip(now) {
    const passed = (this.turn.index + 1) * WINDOW + Math.round((now - this.turn.at) * 16);
    this.next = Math.max(this.next, passed) + SLACK;
    this.behind = 0;
  }

  // The connection is back, and time has gone on meanwhile. To be called before the micro-turns that were missed come.
  resume(now) {
    this.sent = []; // no answer to these says how long answers take
    if (this.turn) this.skip(now);
  }

  // A micro-turn that comes now → milliseconds since the last of its sound was sent; null without a microphone.
  answered(index, late, now) {
    const end = (index + 1) * WINDOW;
    while (this.sent.length && this.sent[0].end < end) this.sent.shift();
    this.turn = { index, at: now };
    this.behind = late > this.late ? this.behind + 1 : 0;
    this.late = late;
    if (!this.sent.length) return null;
    this.leads.push(this.next - end);
    if (this.leads.length === LOOKS) {
      const lead = Math.min(...this.leads);
      if (lead > MOST_LEAD) this.next -= lead - MOST_LEAD / 2; // the server drops what it has already
      this.leads = [];
    }
    return now - this.sent[0].at;
  }
}
