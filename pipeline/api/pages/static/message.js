// The page at /: sends the form while the person types, and shows the result without loading the page anew.
"use strict";

const PAUSE = 300; // milliseconds without a key before the message is sent
const form = document.getElementById("message-form");
const field = form.elements.message;
const result = document.getElementById("result");
let timer = 0;
let running = false;
let answered = field.value;

// Takes over the result from the page that the server rendered. It is parsed, but nothing in it is executed.
function show(page) {
  const problem = page && page.getElementById("problem");
  if (!page || problem) {
    showProblem(problem ? problem.textContent : "The server gave no answer that this page can show.");
    return;
  }
  for (const id of ["verdict", "words"]) {
    document.getElementById(id).replaceChildren(...page.getElementById(id).childNodes);
  }
}

function showProblem(text) {
  const paragraph = document.createElement("p");
  paragraph.className = "problem";
  paragraph.textContent = text;
  document.getElementById("verdict").replaceChildren(paragraph);
  document.getElementById("words").replaceChildren();
}

// Sends one request at a time; what was typed meanwhile is sent as soon as the answer is there.
function ask() {
  clearTimeout(timer);
  if (running || field.value === answered) {
    return;
  }
  answered = field.value;
  if (!answered.trim()) {
    document.getElementById("verdict").replaceChildren();
    document.getElementById("words").replaceChildren();
    return;
  }
  running = true;
  result.setAttribute("aria-busy", "true");
  const request = new XMLHttpRequest(); // fetch cannot parse HTML without a Trusted Types policy
  request.open("POST", form.action);
  request.responseType = "document";
  request.onload = () => show(request.response);
  request.onerror = () => {
    answered = null; // the same message can be sent again
    showProblem("The server does not answer. Press Enter to try again.");
  };
  request.onloadend = () => {
    running = false;
    result.removeAttribute("aria-busy");
    if (answered !== null) {
      ask();
    }
  };
  request.send(new URLSearchParams(new FormData(form)));
}

field.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(ask, PAUSE);
});
field.addEventListener("keydown", (event) => {
  // While an input method composes a character, Enter chooses it.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask();
  }
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
