/* What pages do beyond links and forms. Everything here may be missing: pages work without it. */
"use strict";

const MOST_LINES = 5000;

/* A refresh must not take away what somebody reads: an open detail, a selection, the focus, what was typed. */
function isBusy(element) {
  const selection = document.getSelection();
  return (
    document.hidden ||
    element.querySelector("details[open]") !== null ||
    [...element.querySelectorAll("input:not([type]), textarea")].some((field) => field.value !== field.defaultValue) ||
    (element.contains(document.activeElement) && document.activeElement !== element) ||
    (selection !== null && !selection.isCollapsed && element.contains(selection.anchorNode))
  );
}

document.addEventListener("htmx:beforeRequest", (event) => {
  const element = event.detail.elt;
  if (element.hasAttribute("data-refresh") && isBusy(element)) event.preventDefault();
});

/* Menus close when one clicks elsewhere or presses Escape. */
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.pick[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.pick[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

/* The live log: the server sends finished HTML; this appends it and stays at the bottom. */
class LiveLog {
  constructor(log) {
    this.log = log;
    this.after = log.dataset.after;
    this.mark = document.querySelector("[data-live-mark]");
    this.button = document.querySelector("[data-follow]");
    this.following = true;
    this.toBottom();
    this.button.hidden = !log.dataset.live;
    this.button.addEventListener("click", () => this.follow(!this.following));
    log.addEventListener("scroll", () => this.scrolled());
    if (log.dataset.live) this.connect();
  }

  connect() {
    const address = new URL(this.log.dataset.live, document.baseURI);
    address.searchParams.set("after", this.after);
    this.source = new EventSource(address);
    this.source.addEventListener("open", () => this.alive(true));
    this.source.addEventListener("lines", (event) => this.append(event));
    this.source.addEventListener("status", (event) => this.refresh(event));
    this.source.addEventListener("end", (event) => this.end(event));
    this.source.addEventListener("error", () => this.lost());
  }

  /* A browser reconnects by itself after a broken line, but not after an answer of 500. */
  lost() {
    this.alive(false);
    if (this.source.readyState === EventSource.CLOSED) setTimeout(() => this.connect(), 3000);
  }

  alive(yes) {
    if (this.mark) this.mark.hidden = !yes;
  }

  append(event) {
    this.after = event.lastEventId;
    this.log.querySelector("[data-no-lines]")?.remove();
    this.log.insertAdjacentHTML("beforeend", event.data);
    while (this.log.childElementCount > MOST_LINES) this.log.firstElementChild.remove();
    if (this.following) this.toBottom();
  }

  refresh(event) {
    const now = document.querySelector("[data-run-now]");
    if (window.htmx) window.htmx.ajax("GET", now.dataset.runNow, { target: now, swap: "innerHTML" });
  }

  end(event) {
    this.source.close();
    this.alive(false);
    this.button.hidden = true;
    this.refresh(event);
  }

  follow(yes) {
    this.following = yes;
    this.button.setAttribute("aria-pressed", String(yes));
    if (yes) this.toBottom();
  }

  scrolled() {
    const rest = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight;
    const atBottom = rest < 24;
    if (atBottom !== this.following) {
      this.following = atBottom;
      this.button.setAttribute("aria-pressed", String(atBottom));
    }
  }

  toBottom() {
    this.log.scrollTop = this.log.scrollHeight;
  }
}

const log = document.getElementById("log");
if (log && document.querySelector("[data-follow]")) new LiveLog(log);

/* The slider of a state: it says which moment it stands at, and goes there when it is let go. */
for (const slider of document.querySelectorAll("[data-slider]")) {
  const form = slider.form;
  const [first, last] = [Date.parse(form.elements.first.value), Date.parse(form.elements.last.value)];
  slider.addEventListener("input", () => {
    const at = new Date(first + ((last - first) * slider.value) / slider.max);
    const words = slider.value === slider.max ? "now" : `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
    form.querySelector("output").value = words;
    slider.setAttribute("aria-valuetext", words);
  });
  slider.addEventListener("pointerup", () => form.requestSubmit());
}
