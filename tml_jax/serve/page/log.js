// The conversation in words. Screen readers are not given what the voice says anyway, but what is only written.

const MOST = 200; // entries
const LONGEST = 2000; // characters of an entry; a voice that goes on is shown in several

export class Log {
  // list: an <ol>. announced: an element that is read out when it changes.
  constructor(list, announced) {
    this.list = list;
    this.announced = announced;
    this.open = null;
  }

  add(who, kind, text) {
    const entry = document.createElement("li");
    const name = document.createElement("b");
    const words = document.createElement("span");
    entry.className = kind;
    name.textContent = who;
    words.textContent = text;
    entry.append(name, words);
    this.list.append(entry);
    while (this.list.children.length > MOST) this.list.firstChild.remove();
    this.list.scrollTop = this.list.scrollHeight;
    return words;
  }

  // Words that the model says now.
  speak(text) {
    if (!text) return;
    if (this.open?.textContent.length > LONGEST) this.pause();
    if (this.open) {
      this.open.textContent += text;
      this.list.scrollTop = this.list.scrollHeight;
    } else {
      this.open = this.add("Model", "model", text.trimStart());
    }
  }

  // The model stops.
  pause() {
    this.open = null;
  }

  // Text that the model writes.
  show(text) {
    if (!text) return;
    this.pause();
    this.add("Model wrote", "shown model", text);
    this.announce(text);
  }

  announce(text) {
    this.announced.textContent = text;
  }

  // What the page says, of the conversation itself.
  note(text) {
    this.pause();
    this.add("", "note", text);
    this.announce(text);
  }

  wrote(text) {
    this.pause();
    this.add("You wrote", "you", text);
  }
}
