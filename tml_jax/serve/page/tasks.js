// What the model has handed to the background: a card for each task, with what was asked, how it stands, what came.
// A task is asked, running once the background has begun with it, answered, and read once the model has come to the
// end of the answer; or it has failed or expired, or was cancelled.

const MOST = 20; // cards
const MOST_TEXT = 2000; // characters of a text on a card
const STATES = {
  asked: "asked", refined: "asked", running: "running", done: "answered", cancelled: "cancelled", failed: "failed",
  expired: "expired",
};
const PIECE = /^#(\d+)([.!]?)(?: (.*))?$/s; // a piece of a result, as the model reads it; the last has a full stop

export class Tasks {
  // section: hidden as long as there is no task. list: its <ol>. changed: told (number, state) of every change.
  constructor(section, list, changed) {
    this.section = section;
    this.list = list;
    this.changed = changed;
    this.clear();
  }

  clear() {
    this.cards = new Map(); // number → {item, asked, state, found}
    this.list.replaceChildren();
    this.section.hidden = true;
  }

  // What has happened to tasks, and pieces of results that the model began to read, in one micro-turn.
  turn(events, given) {
    for (const { what, number, text, reason } of events) {
      const state = STATES[what];
      if (!state || !number) continue; // a malformed task is none
      const card = this.card(number);
      if (what === "asked" || what === "refined") {
        card.asked.textContent = card.asked.textContent ? `${card.asked.textContent}; ${text}`.slice(-MOST_TEXT) : text;
        card.found.textContent = "";
      }
      if (reason) card.found.textContent = reason;
      this.set(number, card, state);
    }
    for (const piece of given) {
      const [, number, mark, text = ""] = piece.match(PIECE) ?? [];
      if (!number || mark === "!") continue; // why it failed is known from the event
      const card = this.card(Number(number));
      card.found.textContent = `${card.found.textContent} ${text}`.trim().slice(0, MOST_TEXT);
      if (mark === ".") this.set(Number(number), card, "read");
    }
  }

  set(number, card, state) {
    card.item.dataset.state = state;
    card.state.textContent = state;
    this.changed(number, state);
  }

  card(number) {
    if (this.cards.has(number)) return this.cards.get(number);
    const item = document.createElement("li");
    const part = (tag, kind) => {
      const element = document.createElement(tag);
      element.className = kind;
      item.append(element);
      return element;
    };
    part("b", "number").textContent = `Task ${number}`;
    const card = { item, state: part("span", "task-state"), asked: part("p", "asked"), found: part("p", "found") };
    this.cards.set(number, card);
    this.list.append(item);
    this.section.hidden = false;
    while (this.cards.size > MOST) {
      const [oldest, { item: gone }] = this.cards.entries().next().value;
      this.cards.delete(oldest);
      gone.remove();
    }
    this.list.scrollLeft = this.list.scrollWidth;
    return card;
  }
}
