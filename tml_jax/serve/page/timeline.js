// The last seconds of both sides: levels, when the model speaks, words where they are spoken, and tasks as they run.

const SECONDS = 12;
const LOUD = 0.5; // peak that fills a lane; the root of the peak is drawn, so that quiet speech shows
const MARGIN = 10;
const OPEN = ["asked", "running", "answered"]; // tasks that the model still waits for, or has not read

export class Timeline {
  constructor(canvas) {
    this.canvas = canvas;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.levels = { user: [], model: [] }; // {at, peak}
    this.gates = []; // {at, speaks}, 200 ms each
    this.notes = []; // {at, text, side}
    this.tasks = new Map(); // number → {at, until, state}; one that is open has no end yet
    this.drawn = -Infinity;
    const styles = getComputedStyle(document.documentElement);
    this.colour = (name) => styles.getPropertyValue(`--${name}`);
    requestAnimationFrame((now) => this.frame(now));
  }

  level(side, peak, at) {
    this.levels[side].push({ at, peak });
    this.forget(at - 2 * SECONDS * 1000); // here, because nothing is drawn while the page is hidden
  }

  gate(speaks, at) {
    this.gates.push({ at, speaks });
    this.forget(at - 2 * SECONDS * 1000); // there may be no levels: without https, or without a microphone
  }

  // Words of a side; `shown` ones are written, not spoken.
  note(side, text, at) {
    if (text.trim()) this.notes.push({ at, text: text.trim(), side });
  }

  // A task stands differently from now on.
  task(number, state, at) {
    if (state === "asked") this.tasks.delete(number); // one that is refined is asked anew
    const { at: began } = this.tasks.get(number) ?? { at };
    this.tasks.set(number, { at: began, until: OPEN.includes(state) ? Infinity : at, state });
  }

  // Another session begins: its tasks are others.
  forget_tasks() {
    this.tasks.clear();
  }

  frame(now) {
    // Without motion, the picture fills from the left and begins anew, a step each half second.
    if (!this.still.matches || now - this.drawn > 500) {
      this.drawn = now;
      this.draw(now);
    }
    requestAnimationFrame((next) => this.frame(next));
  }

  forget(before) {
    for (const list of [this.levels.user, this.levels.model, this.gates, this.notes]) {
      while (list.length && list[0].at < before) list.shift();
    }
    for (const [number, { until }] of this.tasks) if (until < before) this.tasks.delete(number);
  }

  draw(now) {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const span = SECONDS * 1000;
    const start = this.still.matches ? now - (now % span) : now - span;
    const x = (at) => MARGIN + ((at - start) / span) * (width - 2 * MARGIN);
    const lane = { user: height * 0.28, model: height * 0.69 };
    const tall = height * 0.15;
    this.draw_gates(context, x, lane.model, tall);
    this.draw_levels(context, x, this.levels.user, lane.user, tall, this.colour("user"), 40);
    this.draw_levels(context, x, this.levels.model, lane.model, tall, this.colour("model"), 20);
    this.draw_seconds(context, x, start, height);
    this.draw_tasks(context, x, now, width, height - 20);
    this.draw_notes(context, x, { user: lane.user + tall + 12, model: lane.model + tall + 16 }, width);
    context.textAlign = "left";
    context.font = "600 13px system-ui, sans-serif";
    for (const [side, name] of [["user", "You"], ["model", "Model"]]) {
      context.fillStyle = this.colour(side);
      context.fillText(name, MARGIN, lane[side] - tall - 6);
    }
  }

  draw_gates(context, x, middle, tall) {
    context.fillStyle = this.colour("speak");
    for (const { at, speaks } of this.gates) {
      if (speaks && x(at) >= MARGIN) context.fillRect(x(at), middle - tall, x(at + 200) - x(at) + 0.5, 2 * tall);
    }
  }

  draw_levels(context, x, levels, middle, tall, colour, ms) {
    context.fillStyle = this.colour("line");
    context.fillRect(MARGIN, middle - 0.5, context.canvas.clientWidth - 2 * MARGIN, 1);
    context.fillStyle = colour;
    const wide = Math.max(1, x(ms) - x(0) - 0.3);
    for (const { at, peak } of levels) {
      const half = Math.min(1, Math.sqrt(peak / LOUD)) * tall;
      if (half > 0.5 && x(at) >= MARGIN) context.fillRect(x(at), middle - half, wide, 2 * half);
    }
  }

  draw_seconds(context, x, start, height) {
    context.fillStyle = this.colour("line");
    for (let second = Math.ceil(start / 1000); second * 1000 <= start + SECONDS * 1000; second++) {
      context.fillRect(x(second * 1000), height - 5, 1, 5);
    }
  }

  draw_tasks(context, x, now, width, line) {
    const colours = {
      asked: "soft", running: "mark", answered: "user", read: "model", failed: "bad", expired: "bad", cancelled: "soft",
    };
    context.font = "600 10px system-ui, sans-serif";
    context.textAlign = "left";
    for (const [number, { at, until, state }] of this.tasks) {
      const left = Math.max(x(at), MARGIN);
      const right = Math.min(x(Math.min(until, now)), width - MARGIN);
      if (right < left) continue;
      context.fillStyle = this.colour(colours[state]);
      context.fillRect(left, line, Math.max(3, right - left), 4);
      context.fillText(String(number), left, line + 14);
    }
  }

  draw_notes(context, x, line, width) {
    context.font = "13px system-ui, sans-serif";
    context.fillStyle = this.colour("text");
    const free = { user: -Infinity, model: -Infinity }; // where the last word ends
    for (const { at, text, side } of this.notes) {
      const wide = context.measureText(text).width;
      const left = Math.max(x(at), free[side]);
      if (left < MARGIN || left > width - MARGIN) continue;
      context.fillText(text, left, line[side]);
      free[side] = left + wide + 5;
    }
  }
}
