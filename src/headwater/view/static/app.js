// What is live: the answer as it is written, selecting words, the question's keys. Every page works without it.
"use strict";
{
  const all = (css, from = document) => [...from.querySelectorAll(css)];
  const one = (css, from = document) => from.querySelector(css);

  // A question on its way.
  const job = one("[data-job]");
  if (job && one("progress", job)) {
    const text = one("[data-text]", job), step = one("[data-step]", job), bar = one("[data-share]", job);
    const place = `/jobs/${job.dataset.job}`;
    const events = new EventSource(`${place}/events`);
    events.onmessage = (event) => {
      const told = JSON.parse(event.data);
      if (told.text) text.textContent = told.text;
      text.classList.toggle("writing", told.state === "answering");
      step.textContent = told.ahead ? `${told.ahead} before this one` : told.step || told.state;
      if (told.share > 0) bar.value = told.share; else bar.removeAttribute("value");
      if (["done", "failed", "cancelled"].includes(told.state)) {
        events.close();
        location.replace(place);
      }
    };
    events.onerror = () => { events.close(); setTimeout(() => location.replace(place), 1000); };
  }

  // Who comes from another of our pages has asked for this trace already.
  const now = one("form[data-now]");
  if (now && document.referrer.startsWith(`${location.origin}/`) && !document.referrer.includes("/jobs/")) {
    const kind = performance.getEntriesByType("navigation")[0]?.type;
    if (kind === "navigate") now.requestSubmit();
  }

  // Words: drag over them, or arrow keys with Shift, as in any text.
  const field = one("[data-words]");
  if (field) {
    const boxes = all("input", field);
    const set = (from, to, on) => {
      for (let i = Math.min(from, to); i <= Math.max(from, to); i++) boxes[i].checked = on;
    };
    const at = (node) => boxes.indexOf(one("input", (node instanceof Element ? node : node.parentElement)?.closest(".word") ?? document.createElement("i")));
    let start = -1, before = [], moved = false;
    field.addEventListener("pointerdown", (event) => {
      start = at(event.target);
      before = boxes.map((box) => box.checked);
      moved = false;
    });
    field.addEventListener("pointermove", (event) => {
      if (start < 0 || event.buttons !== 1) return;
      const here = at(document.elementFromPoint(event.clientX, event.clientY) ?? field);
      if (here < 0 || (here === start && !moved)) return;
      moved = true;
      boxes.forEach((box, i) => { box.checked = before[i]; });
      set(start, here, true);
      event.preventDefault();
    });
    addEventListener("pointerup", () => { start = -1; });
    field.addEventListener("click", (event) => { if (moved) { event.preventDefault(); moved = false; } }, true);
    field.addEventListener("keydown", (event) => {
      const here = boxes.indexOf(document.activeElement);
      const rtl = getComputedStyle(one(".answer", field)).direction === "rtl";
      const way = { ArrowRight: rtl ? -1 : 1, ArrowLeft: rtl ? 1 : -1 }[event.key];
      if (here < 0 || !way) return;
      const there = Math.min(Math.max(here + way, 0), boxes.length - 1);
      if (event.shiftKey) set(here, there, true);
      boxes[there].focus();
      event.preventDefault();
    });
    field.addEventListener("dragstart", (event) => event.preventDefault());
  }
  for (const hint of all(".keys")) hint.hidden = false;

  for (const box of all(".ask textarea")) {
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) box.form.requestSubmit();
    });
  }

  const value = one(".value");
  if (value) document.addEventListener("click", (event) => {
    const token = event.target.closest?.(".text span[title], td[title]");
    value.textContent = token ? `${token.textContent.trim()}  ${token.title}` : "";
  });

  const copy = one("[data-copy]");
  if (copy && navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(location.href);
      copy.textContent = "Copied";
    });
  }
}
