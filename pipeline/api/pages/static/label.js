// The page /label/DATE: shows one message after the other, and stores each answer in the background.
"use strict";

const { date, person } = document.querySelector("main").dataset;
const csrfToken = document.querySelector("meta[name=csrf-token]").content;
const element = (id) => document.getElementById(id);
const buttons = ["spam", "ham", "skip", "undo"];
const keys = { s: "spam", h: "ham", n: "skip", u: "undo" };

// Kept in the tab, so that loading the page again loses nothing. It holds no text of a message.
//   answers:  {id, label} in the order in which they were given
//   unsent:   {id, label} that the server has not confirmed; label is null where an answer was undone
//   previous: the label that each message had before, which undo restores
const storageKey = `spamscore labels ${date} ${person}`;
const kept = JSON.parse(sessionStorage.getItem(storageKey)) || { answers: [], unsent: [], previous: {} };

let round = null; // number of the round
let messages = []; // of the round; `answer` is spam, ham, skip, or empty
let sending = false;

async function post(path, content) {
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": csrfToken };
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(content) }).catch(() => {
    throw new Error("The server does not answer.");
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(answer.error || `The server answered with status ${response.status}.`);
  }
  return answer;
}

async function load(number) {
  showProblem(null);
  element("status").hidden = false;
  element("done").hidden = true;
  try {
    const answer = await post(`/label/${date}/messages`, { round: number });
    round = answer.round;
    messages = answer.messages.map((message) => ({ ...message, answer: message.label }));
  } catch (error) {
    showProblem(error.message, () => load(number));
    return;
  } finally {
    element("status").hidden = true;
  }
  replay();
  show();
  send();
}

// Applies the kept answers to the messages as the server knows them. An answer that it does not confirm is dropped.
function replay() {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const unsentIds = new Set(kept.unsent.map((entry) => entry.id));
  kept.answers = kept.answers.filter(({ id, label }) => {
    const message = byId.get(id);
    return message && (label === "skip" || unsentIds.has(id) || message.label === label);
  });
  for (const { id, label } of [...kept.unsent, ...kept.answers]) {
    if (byId.has(id)) {
      byId.get(id).answer = label || "";
    }
  }
}

// Sends what is unsent in its order. Stops at a problem; the next answer, or the button, tries again.
async function send() {
  if (sending) return;
  sending = true;
  try {
    while (kept.unsent.length) {
      const entry = kept.unsent[0];
      const label = entry.label || kept.previous[entry.id] || "none";
      const retried = entry.tried;
      entry.tried = true;
      showProgress();
      const { previous } = await post(`/label/${date}`, { message_id: entry.id, label });
      if (!entry.label) {
        delete kept.previous[entry.id];
      } else if (!retried && !(entry.id in kept.previous)) {
        kept.previous[entry.id] = previous; // a second try may have found the label of the first
      }
      kept.unsent.shift();
    }
    showProblem(null);
  } catch (error) {
    showProblem(error.message, send);
  } finally {
    sending = false;
    showProgress();
  }
}

function currentMessage() {
  return messages.find((message) => !message.answer);
}

function answer(label) {
  const message = currentMessage();
  if (!message) return;
  message.answer = label;
  kept.answers.push({ id: message.id, label });
  if (label !== "skip") {
    kept.unsent.push({ id: message.id, label });
  }
  show();
  send();
}

function undo() {
  const last = kept.answers.pop();
  if (!last) return;
  messages.find((message) => message.id === last.id).answer = "";
  const unsent = kept.unsent.at(-1);
  if (unsent && unsent.id === last.id && unsent.label && !unsent.tried) {
    kept.unsent.pop();
  } else if (last.label !== "skip") {
    kept.unsent.push({ id: last.id, label: null });
  }
  show();
  send();
}

function show() {
  const message = currentMessage();
  element("card").hidden = !message;
  element("done").hidden = Boolean(message);
  if (message) {
    showText(element("text"), message.text);
    showText(element("message-id"), message.shown_id);
    element("probability").textContent = `${message.probability}, ${message.flagged ? "flagged" : "not flagged"}`;
    element("more").hidden = !message.hidden_characters;
    element("more").textContent = `… and ${message.hidden_characters} more characters`;
  } else {
    element("done-text").textContent = messages.length ? "This round is done." : "There is nothing more to label.";
    element("next").focus();
  }
  for (const name of buttons) {
    element(name).disabled = name === "undo" ? !kept.answers.length : !message;
  }
  showProgress();
}

// Every second part is the code of a character that cannot be seen.
function showText(parent, parts) {
  parent.replaceChildren(
    ...parts.map((part, index) => (index % 2 ? Object.assign(document.createElement("i"), { textContent: part }) : part)),
  );
}

function showProgress() {
  const count = (label) => messages.filter((message) => message.answer === label).length;
  const [spam, ham, skipped] = ["spam", "ham", "skip"].map(count);
  const done = spam + ham + skipped;
  element("bar").max = Math.max(messages.length, 1);
  element("bar").value = done;
  element("progress").textContent =
    `${done} of ${messages.length}, ${spam} spam, ${ham} ham` + (skipped ? `, ${skipped} skipped` : "");
  const unsent = kept.unsent.length;
  element("stored").textContent = unsent ? `${unsent} not stored yet` : "All stored";
  element("discard").hidden = !unsent;
  sessionStorage.setItem(storageKey, JSON.stringify(kept));
}

// Shows a problem and a button that tries again, or hides it.
function showProblem(text, retry) {
  element("problem").hidden = !text;
  element("problem-text").textContent = text || "";
  element("retry").onclick = retry;
}

for (const label of ["spam", "ham", "skip"]) {
  element(label).onclick = () => answer(label);
}
element("undo").onclick = undo;
element("next").onclick = () => load(round + 1);
element("discard").onclick = () => {
  kept.answers = kept.answers.filter(({ id }) => !kept.unsent.some((entry) => entry.id === id));
  kept.unsent = [];
  showProgress();
  load(round);
};
document.addEventListener("keydown", (event) => {
  const name = keys[event.key.toLowerCase()];
  const types = event.target.matches("input:not([type=checkbox])");
  // A key that is held down is one answer.
  if (!name || types || event.repeat || event.ctrlKey || event.altKey || event.metaKey || !element("keys").checked) {
    return;
  }
  event.preventDefault();
  element(name).click();
});
addEventListener("beforeunload", (event) => {
  if (kept.unsent.length) event.preventDefault(); // the browser asks whether to leave
});
load(null);
