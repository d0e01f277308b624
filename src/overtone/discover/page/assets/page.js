// Wiring: draw every chart when its width is known, and let switches, tabs, filters and the theme button do their work.

function draw(host) {
  if (host.clientWidth > 0) FIGURES[host.dataset.chart](host, host.dataset);
}

function press(button) {
  for (const other of button.parentElement.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
}

const widths = new WeakMap();
const resized = new ResizeObserver((entries) => {
  for (const { target } of entries)
    if (Math.abs(widths.get(target) - target.clientWidth) >= 1) { widths.set(target, target.clientWidth); setTimeout(() => draw(target), 0); }
});
for (const host of document.querySelectorAll("[data-chart]")) { draw(host); widths.set(host, host.clientWidth); resized.observe(host); }
addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details:not([open])")) { fold.open = true; fold.dataset.folded = ""; } document.querySelectorAll("[data-chart]").forEach(draw); });
addEventListener("afterprint", () => { for (const fold of document.querySelectorAll("details[data-folded]")) { fold.open = false; delete fold.dataset.folded; } });

for (const group of document.querySelectorAll("[data-switch]"))
  group.addEventListener("click", ({ target }) => {
    if (target.tagName !== "BUTTON") return;
    press(target);
    for (const host of document.querySelectorAll(group.dataset.switch === "atoms" ? '[data-chart="atoms"]' : '[data-chart="dose"]')) {
      if (group.dataset.switch === "atoms") { host.dataset.value = target.dataset.value; host.hiddenNames = new Set(); }
      draw(host);
    }
  });

for (const group of document.querySelectorAll("[data-tabs]")) {
  const show = (value) => { for (const tab of document.querySelectorAll(`[data-tab="${group.dataset.tabs}"]`)) tab.hidden = tab.dataset.value !== value; };
  group.addEventListener("click", ({ target }) => { if (target.tagName === "BUTTON") { press(target); show(target.dataset.value); } });
  show("0");
}

for (const list of document.querySelectorAll("[data-list]")) {
  const name = list.dataset.list, cards = [...list.children], more = document.querySelector(`[data-more="${name}"]`);
  let all = false, wanted = "";
  const update = () => {
    const fitting = cards.filter((card) => !wanted || card.dataset.value === wanted);
    for (const card of cards) card.hidden = true;
    for (const card of all || wanted ? fitting : fitting.slice(0, Number(list.dataset.first))) card.hidden = false;
    more.hidden = all || wanted !== "" || fitting.length <= Number(list.dataset.first);
  };
  more.addEventListener("click", () => { all = true; update(); });
  document.querySelector(`[data-filter="${name}"]`)?.addEventListener("click", ({ target }) => {
    if (target.tagName === "BUTTON") { press(target); wanted = target.dataset.value; update(); }
  });
  update();
}

const links = new Map([...document.querySelectorAll(".index a")].map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) for (const [id, link] of links) link.classList.toggle("now", id === entry.target.id);
}, { rootMargin: "-20% 0px -70% 0px" });
for (const id of links.keys()) { const section = document.getElementById(id); if (section) reading.observe(section); }

const root = document.documentElement;
const remembered = (value) => { try { return value ? localStorage.setItem("overtone-theme", value) : localStorage.getItem("overtone-theme"); } catch { return null; } };
if (remembered()) root.dataset.theme = remembered();
document.querySelector(".theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  remembered(root.dataset.theme);
});
