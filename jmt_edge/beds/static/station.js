// The station: asks once a second what is known of every bed, and shows nothing that is old.
import { $, make, say } from "/static/dom.js";
import { pressed } from "/static/keys.js";
import { openDialog } from "/static/layers.js";
import { inLanguage, percentParts, signed, tr, translated } from "/static/text.js";
import { ago, alarmsOf, gravest, sentence, signalsOf } from "/static/tiles.js";

const PERIOD = 1000; // ms between two questions
const OLD = 3500; // ms without an answer after which nothing is shown

let token = sessionStorage.getItem("jmt-edge-station-token") || "";
let heard = performance.now();
let asking = false;
const tiles = new Map();

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  keep(given);
  history.replaceState(null, "", location.pathname);
}

function keep(entered) {
  token = entered;
  sessionStorage.setItem("jmt-edge-station-token", entered);
}

async function ask(path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = { headers, cache: "no-store", signal: AbortSignal.timeout(OLD) };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const answer = await fetch(path, options);
  const found = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(translated(found.error)), { status: answer.status });
  return inLanguage(found);
}

async function turn() {
  if (!asking && !$("token-dialog").open) {
    asking = true;
    try {
      const found = await ask("/api/v1/beds");
      heard = performance.now();
      show(found);
    } catch (error) {
      if (error.status === 401) needToken(token ? tr("That token is wrong.") : "");
    }
    asking = false;
  }
  const old = performance.now() - heard > OLD, refused = $("token-dialog").open;
  $("veil").hidden = !old || refused;
  if (old || refused) {
    say($("veil-text"), tr("The station does not answer. Look at the beds themselves."));
    document.body.dataset.trust = "lost";
    const why = refused ? tr("token needed") : tr("no connection");
    say($("link"), why);
    for (const tile of tiles.values()) blank(tile);
    unknown(why);
  }
}

function needToken(why) {
  say($("token-error"), why);
  openDialog($("token-dialog"));
}

$("token-form").addEventListener("submit", () => {
  keep($("token").value.trim());
  $("token").value = "";
  heard = performance.now();
});

function show(found) {
  say($("prefix"), found.prefix || tr("read directly"));
  document.body.dataset.trust = found.broker ? "lost" : "live";
  say($("link"), found.broker ? tr("no broker") : tr("live"));
  const live = found.beds.filter((bed) => bed.state === "live").length;
  say($("count"), tr("{n} of {all} beds live", { n: live, all: found.beds.length }));
  const names = new Set(found.beds.map((bed) => bed.name));
  for (const [name, tile] of tiles) {
    if (!names.has(name)) {
      tile.node.remove();
      tiles.delete(name);
    }
  }
  found.beds.forEach((bed, at) => {
    if (!tiles.has(bed.name)) tiles.set(bed.name, newTile(bed.name));
    const tile = tiles.get(bed.name);
    if ($("beds").children[at] !== tile.node) $("beds").insertBefore(tile.node, $("beds").children[at] || null);
    fill(tile, bed);
  });
  $("empty").hidden = found.beds.length > 0;
  say($("empty"), found.broker ? tr("No connection to the broker: {why}", { why: found.broker }) : tr("No bed has been heard yet."));
  banner(found);
}

function newTile(name) {
  const parts = {
    mark: make("span", { class: "mark" }),
    value: make("output", { class: "value", "aria-live": "off" }),
    say: make("p", { class: "say" }),
    chips: make("span", { class: "chips" }),
    seen: make("span", { class: "seen" }),
  };
  const node = make("article", { class: "tile", "aria-label": name },
    make("div", { class: "top" }, make("h2", {}, name), parts.mark), parts.value, parts.say,
    make("div", { class: "low" }, parts.chips, parts.seen));
  return { node, ...parts };
}

function fill(tile, bed) {
  const alarms = alarmsOf(bed);
  const signalling = alarms.find((alarm) => alarm.signals);
  tile.node.dataset.state = bed.state;
  tile.node.dataset.priority = alarms[0]?.priority || "";
  tile.node.dataset.signal = signalling?.priority || "";
  say(tile.mark, bed.demo && bed.state !== "lost" ? tr("DEMO") : "");
  value(tile.value, bed);
  tile.node.title = bed.notice;
  say(tile.say, sentence(bed, alarms[0]));
  tile.chips.replaceChildren(...signalsOf(bed).map(({ name, ok, why }) => make("span", { class: ok ? "chip" : "chip off", title: why }, name)));
  say(tile.seen, ago(bed.heard));
}

function value(node, bed) {
  const outputs = bed.outputs;
  const pain = outputs?.pain;
  const pair = outputs && pain === undefined;
  node.className = `value${outputs ? "" : " none"}${pair ? " both" : ""}`;
  if (!outputs) say(node, "—");
  else if (pair) {
    const named = [["valence", tr("valence")], ["arousal", tr("arousal")]].map(([name, words]) => [signed(outputs[name]), ` ${words}`]);
    if (node.textContent !== named.flat().join("")) {
      node.replaceChildren(...named.map(([number, name]) => make("span", {}, number, make("small", {}, name))));
    }
  } else {
    const [number, sign] = percentParts(pain), after = `${sign} ${tr("pain")}`;
    if (node.textContent !== number + after) node.replaceChildren(number, make("small", {}, after));
  }
}

function blank(tile) {
  Object.assign(tile.node.dataset, { state: "lost", priority: "", signal: "" });
  tile.value.className = "value none";
  say(tile.value, "—");
  say(tile.say, tr("not known"));
  tile.chips.replaceChildren();
  say(tile.seen, "");
}

/** The gravest alarms by bed; a click goes to the tile, which may be out of sight. */
function banner(found) {
  const all = gravest(found), shown = all.slice(0, 3);
  Object.assign($("banner").dataset, { priority: all[0]?.priority || "", signal: all.find((alarm) => alarm.signals)?.priority || "" });
  $("ack").hidden = !found.alarms.some((alarm) => alarm.state === "active" || alarm.state === "latched");
  tell(JSON.stringify([shown.map(({ detail, ...rest }) => rest), all.length]), () => {
    const rows = shown.map(bannerLine);
    if (all.length > 3) rows.push(make("div", {}, tr("{n} more", { n: all.length - 3 })));
    return rows.length ? rows : [make("div", { class: "calm" }, tr("No alarms"))];
  });
}

function bannerLine(alarm) {
  if (!alarm.bed) return make("div", { class: "alarm" }, alarm.text);
  const button = make("button", { type: "button" }, alarm.bed);
  button.addEventListener("click", () => tiles.get(alarm.bed)?.node.scrollIntoView({ block: "center" }));
  return make("div", { class: "alarm" }, button, ` ${alarm.text}`);
}

/** No alarm is known, which is not the same as none. */
function unknown(why) {
  Object.assign($("banner").dataset, { priority: "", signal: "" });
  $("ack").hidden = true;
  tell(why, () => [make("div", { class: "calm" }, tr("Alarms unknown: {why}", { why }))]);
}

/** The lines of the banner; written only where `key` differs, so that they are read out once. */
function tell(key, rows) {
  if (tell.key === key) return;
  tell.key = key;
  $("banner-list").replaceChildren(...rows());
}

$("ack").addEventListener("click", () => ask("/api/v1/acknowledge", {}).then(turn, () => {}));
function theme() {
  const dark = document.documentElement.dataset.theme === "dark" ||
    (document.documentElement.dataset.theme === "auto" && !matchMedia("(prefers-color-scheme: light)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
}
$("theme").addEventListener("click", theme);
document.addEventListener("keydown", (event) => {
  const key = pressed(event)?.key;
  if (key === "d") theme();
  if (key === "a" && !$("ack").hidden) $("ack").click();
});

setInterval(turn, PERIOD);
turn();
