"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const plot = document.getElementById("map");
const slider = document.getElementById("stage");
const MOST = 40;  // members of a cluster shown at once
let pointed = null;  // the image last pointed at

/* The images of each cluster of a stage. */
function membersOf(stage) {
  const members = [];
  data.clusters[stage].forEach((cluster, image) => (members[cluster] ??= []).push(image));
  return members;
}

/* Far apart for neighboring numbers; a cluster keeps its first image, and so its color, when it swallows another. */
const color = number => `hsl(${(number * 137.5) % 360}, 70%, 50%)`;

function colors(stage, members) {
  if (document.querySelector("[name=color]:checked").value === "identity") return data.pids.map(color);
  return data.clusters[stage].map(c => (members[c].length > 1 ? color(members[c][0]) : "#8a8f98"));
}

function draw(duration) {
  const stage = Number(slider.value), members = membersOf(stage);
  const shared = members.filter(m => m.length > 1).length;
  document.getElementById("state").textContent =
    `Stage ${stage} of ${slider.max}${stage === data.kept ? " (kept)" : ""}: ` +
    `${members.length} clusters, ${shared} of more than one image`;
  const places = data.places[stage];
  const moved = {x: places.map(p => p[0]), y: places.map(p => p[1])};
  Plotly.restyle(plot, {"marker.color": [colors(stage, members)]});
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : duration;
  const timing = {mode: "immediate", transition: {duration: still}, frame: {duration: still, redraw: false}};
  if (pointed !== null) show(pointed);
  Plotly.animate(plot, {data: [moved]}, timing).catch(() => {});  // the next stage cut this one short
}

function picture(image) {
  const shown = document.createElement("img");
  shown.src = data.images[image];
  shown.alt = shown.title = `identity ${data.pids[image]}, camera ${data.camids[image]}`;
  return shown;
}

function show(image) {
  pointed = image;
  const stage = Number(slider.value), cluster = data.clusters[stage][image], own = membersOf(stage)[cluster];
  const text = document.createElement("p"), members = document.createElement("div");
  text.innerText = `identity ${data.pids[image]}\ncamera ${data.camids[image]}\ncluster ${cluster} of stage ${stage}, ` +
    (own.length > 1 ? `${own.length} images; other identities are framed:` : "alone");
  members.className = "members";
  if (own.length > 1) members.append(...own.slice(0, MOST).map(picture));
  own.slice(0, MOST).forEach((m, k) => members.children[k]?.classList.toggle("other", data.pids[m] !== data.pids[image]));
  document.getElementById("pointed").replaceChildren(picture(image), text, members);
  if (own.length > MOST) members.append(`and ${own.length - MOST} more`);
}

Plotly.restyle(plot, {x: [data.places[0].map(p => p[0])], y: [data.places[0].map(p => p[1])]});
draw(0);
slider.addEventListener("input", () => draw(400));
document.querySelectorAll("[name=color]").forEach(choice => choice.addEventListener("change", () => draw(0)));
for (const event of ["plotly_hover", "plotly_click"]) plot.on(event, at => show(at.points[0].pointNumber));
