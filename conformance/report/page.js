"use strict";
const findings = [...document.querySelectorAll("details.finding")];
const groups = [...document.querySelectorAll("details.level")];
const text = document.getElementById("filter-text");
const verdict = document.getElementById("filter-verdict");
const count = document.getElementById("filter-count");

function filter() {
  const words = text.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const narrowed = words.length > 0 || verdict.value !== "";
  let shown = 0;
  const fits = (element) => {
    const content = element.textContent.toLowerCase();
    const fit = (verdict.value === "" || element.dataset.verdict === verdict.value) && words.every((word) => content.includes(word));
    element.hidden = !fit;
    shown += fit ? 1 : 0;
    return fit;
  };
  findings.forEach(fits);
  for (const group of groups) {
    const any = [...group.querySelectorAll("tbody tr")].map(fits).includes(true);
    group.hidden = !any;
    group.open = narrowed ? any : group.dataset.open === "yes";
  }
  document.querySelectorAll(".none-left").forEach((note) => {
    const all = [...note.parentElement.querySelectorAll("details.finding, details.level")];
    note.hidden = all.length === 0 || all.some((element) => !element.hidden);
  });
  count.textContent = narrowed ? `${shown} shown` : "";
}

function unfold() {
  const open = findings.some((finding) => !finding.open);
  findings.forEach((finding) => { finding.open = open; });
}

function reveal() {
  const target = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
  if (target instanceof HTMLDetailsElement) { target.open = true; }
}

if (text !== null) {
  document.getElementById("filter").hidden = false;
  text.addEventListener("input", filter);
  verdict.addEventListener("change", filter);
  document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());
}
const all = document.getElementById("unfold");
if (all !== null) {
  all.hidden = false;
  all.addEventListener("click", unfold);
}
window.addEventListener("hashchange", reveal);
reveal();

let closed = [];
window.addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((element) => { element.open = true; });
});
window.addEventListener("afterprint", () => {
  closed.forEach((element) => { element.open = false; });
});
