"use strict";
// Whatever comes from the server or a file is set as text or as a number, never as markup.

const NAMES = { ir: "infrared", text: "text", fusion: "fusion" };
const element = (id) => document.getElementById(id);
let about = null; // what the server says of itself
let picture = null; // the chosen file, a Blob
let more = []; // further pictures of the same person, Blobs
let person = null; // who the query shows, known for examples only
let answers = {}; // what the witness said to the questions about this query
let asked = 0; // number of the latest search; answers to earlier ones are dropped

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function say(text, isError = false) {
  element("message").textContent = text;
  element("message").classList.toggle("error", isError);
}

function setPictures(files) {
  const [first, ...rest] = files;
  if (rest.length + 1 > about.pictures) return say(`At most ${about.pictures} pictures of one person at once.`, true);
  setPicture(first);
  more = picture ? rest : [];
  element("more").hidden = !more.length;
  element("more").textContent = `and ${more.length} more of this person`;
}

function setPicture(blob) {
  if (element("preview").src) URL.revokeObjectURL(element("preview").src);
  if (blob && blob.size > about.limits.image_bytes) {
    blob = null;
    say(`The picture's file is too large; at most ${about.limits.image_bytes >> 20} MiB.`, true);
  }
  picture = blob;
  more = [];
  element("more").hidden = true;
  person = null;
  element("file").value = "";
  element("preview").hidden = element("remove").hidden = !blob;
  element("hint").hidden = Boolean(blob);
  element("unshown").hidden = true;
  if (blob) element("preview").src = URL.createObjectURL(blob);
  else element("preview").removeAttribute("src");
  showMembers();
}

// The server decides who votes and says so; this only shows what is still missing.
function showMembers() {
  const text = Boolean(element("text").value.trim());
  const missing = { ir: picture ? "" : "a picture", text: text ? "" : "a text" };
  missing.fusion = [missing.ir, missing.text].filter(Boolean).join(" and ");
  for (const label of element("members").children) {
    const needs = missing[label.dataset.member];
    label.classList.toggle("idle", Boolean(needs));
    label.title = needs ? `needs ${needs}` : "";
  }
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

async function post(body) {
  try {
    const answer = await fetch("/search", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    return await answer.json();
  } catch (error) {
    return { error: "No answer from the server; is it still running?" };
  }
}

async function search() {
  const number = ++asked;
  const queried = person;
  element("results").classList.add("busy");
  element("search").disabled = true;
  try {
    const body = {
      image: picture ? await base64(picture) : null,
      text: element("text").value,
      infrared_text: element("infrared-text").value,
      members: [...element("members").querySelectorAll("input:checked")].map((box) => box.value),
      top: Number(element("top").value),
      answers,
    };
    if (more.length) body.images = await Promise.all(more.map(base64));
    if (element("threshold").value.trim()) body.threshold = Number(element("threshold").value);
    const answer = await post(body);
    if (number === asked) {
      "error" in answer ? fail(answer.error) : show(answer, queried);
      bringIntoSight();
    }
  } finally {
    if (number === asked) {
      element("results").classList.remove("busy");
      element("search").disabled = false;
    }
  }
}

// The server writes members as programs do.
const inWords = (text) => text.replace(/\bir\b/g, NAMES.ir);

// On a narrow screen the results stand below the form.
function bringIntoSight() {
  const { top } = element("results").getBoundingClientRect();
  if (top < 0 || top > window.innerHeight / 2) element("results").scrollIntoView({ block: "start" });
}

function fail(reason) {
  ask(null);
  element("hits").replaceChildren();
  say(inWords(reason), true);
}

function show(result, queried) {
  ask(result.question);
  if (!result.hits.length) {
    element("hits").replaceChildren();
    return say(`Nobody. ${inWords(result.note)}.`);
  }
  const voted = Object.keys(result.hits[0].shares).map((member) => NAMES[member]);
  const note = result.note ? ` Note: ${inWords(result.note)}.` : "";
  say(`${result.hits.length} of ${about.gallery} pictures, by ${voted.join(" + ")}.${note}`);
  const largest = Math.max(...result.hits.flatMap((hit) => Object.values(hit.shares).map(Math.abs)), 1e-9);
  element("hits").replaceChildren(...result.hits.map((hit, index) => card(hit, index + 1, largest, queried)));
}

// The one question that tells these hits apart best; an answer searches again.
function ask(question) {
  element("ask").hidden = !question;
  if (!question) return;
  element("question").textContent = question.text;
  element("choices").replaceChildren(
    ...[...question.choices, ""].map((choice) => {
      const button = make("button", "plain", choice || "don\u2019t know");
      button.type = "button";
      button.addEventListener("click", () => ((answers = { ...answers, [question.slot]: choice }), search()));
      return button;
    }),
  );
}

function card(hit, rank, largest, queried) {
  const item = make("li");
  const frame = make("div", "picture");
  const image = make("img");
  image.src = `/gallery/${hit.picture}`;
  image.alt = `hit ${rank}`;
  frame.append(image, make("span", "rank", String(rank)));
  if (queried !== null && hit.person === queried) {
    item.className = "same";
    frame.append(make("span", "mark", "\u2713 same person"));
  }
  const facts = make("div", "facts");
  const who = [hit.person === null ? "" : `person ${hit.person}`, hit.camera === null ? "" : `cam ${hit.camera}`, hit.time === null ? "" : `time ${hit.time}`];
  const score = make("div", "score");
  score.append(make("span", "", "similarity"), make("span", "", hit.similarity.toFixed(3)));
  facts.append(make("div", "who", who.filter(Boolean).join(" \u00b7 ")), score);
  for (const [member, share] of Object.entries(hit.shares)) {
    const line = make("div", "share");
    const value = make("output", "", share.toFixed(3).replace("-", "\u2212"));
    line.append(make("span", "", NAMES[member]), bar(member, share / largest), value);
    facts.append(line);
  }
  item.append(frame, facts);
  return item;
}

// From the left edge; a negative share is drawn pale.
function bar(member, part) {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const filled = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  filled.setAttribute("class", member);
  filled.setAttribute("width", `${Math.abs(part) * 100}%`);
  filled.setAttribute("height", "9");
  filled.setAttribute("fill-opacity", part < 0 ? "0.3" : "1");
  drawing.append(filled);
  return drawing;
}

function clear() {
  asked += 1;
  element("results").classList.remove("busy");
  element("search").disabled = false;
  element("text").value = element("infrared-text").value = element("threshold").value = "";
  setPicture(null);
  element("hits").replaceChildren();
  answers = {};
  ask(null);
  say("");
}

async function tryExample(number, example) {
  const answer = await fetch(`/examples/${number}`);
  if (!answer.ok) return say("This example cannot be loaded.", true);
  setPicture(await answer.blob());
  person = example.person;
  element("text").value = example.text;
  element("infrared-text").value = example.infrared_text;
  showMembers();
  answers = {};
  search();
}

async function start() {
  about = await (await fetch("/about")).json();
  element("about").textContent = about.title;
  element("limits").textContent =
    `${about.limits.formats.join(", ")}; at most ${about.limits.image_bytes >> 20} MiB, ${about.limits.image_pixels / 1e6} million pixels`;
  element("text").maxLength = element("infrared-text").maxLength = about.limits.text_characters;
  for (const member of about.members) {
    const label = make("label");
    const box = make("input");
    label.dataset.member = member;
    Object.assign(box, { type: "checkbox", value: member, checked: true });
    // Only a ranking that stands there already is made again at once.
    box.addEventListener("change", () => element("hits").children.length || element("message").classList.contains("error") ? search() : null);
    label.append(box, make("span", `swatch ${member}`), NAMES[member]);
    element("members").append(label);
  }
  about.examples.forEach((example, number) => {
    const button = make("button");
    const image = make("img");
    image.src = `/examples/${number}`;
    image.alt = `example ${number + 1}`;
    Object.assign(button, { type: "button", title: example.text });
    button.append(image);
    button.addEventListener("click", () => tryExample(number, example));
    element("example-list").append(button);
  });
  element("words").hidden = about.members.join() === "ir";
  element("examples").hidden = !about.examples.length;
  showMembers();
}

element("query").addEventListener("submit", (event) => (event.preventDefault(), (answers = {}), search()));
element("text").addEventListener("input", showMembers);
element("file").addEventListener("change", (event) => event.target.files[0] && setPictures([...event.target.files]));
element("preview").addEventListener("error", () => {
  element("preview").hidden = true;
  element("unshown").hidden = !picture;
});
element("remove").addEventListener("click", () => setPicture(null));
element("clear").addEventListener("click", clear);
for (const name of ["dragover", "dragleave", "drop"]) {
  element("drop").addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) setPictures([...event.dataTransfer.files]);
  });
}
document.addEventListener("paste", (event) => event.clipboardData.files[0] && setPicture(event.clipboardData.files[0]));
start().catch(() => say("No answer from the server; is it still running?", true));
