"use strict";
// The live page: it reads /metrics and the management API, and holds nothing back.
const PERIOD = 2000, HISTORY_PERIOD = 15000, REPLICAS_PERIOD = 5000, SHOWN = 12, PAGE = 50, EMPTY_PAGES = 200, CERTIFICATE_DAYS = 14;
const $ = (id) => document.getElementById(id);
let before = null, next = null, count = 0, complete = true, search = 0, hour = [], reasons = {}, fleet = new Map(), served = new Map();

// ---------------------------------------------------------------- metrics

// Prometheus text to a list of {name, labels, value}.
function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = /^([a-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/i.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    samples.push({name: found[1], labels, value: Number(found[3])});
  }
  return samples;
}

// Sums of a metric, by these labels together; over workers and all other labels.
function sums(samples, name, ...labels) {
  const result = new Map();
  for (const sample of samples) {
    if (sample.name !== "kaa_gateway_" + name) continue;
    const key = labels.map((label) => sample.labels[label]).join("\t");
    result.set(key, (result.get(key) || 0) + sample.value);
  }
  return result;
}
const sum = (samples, name) => sums(samples, name).get("") || 0;

// Rates of a counter per second since the last scrape; a counter that fell was reset.
function rates(now, name, ...labels) {
  const current = sums(now.samples, name, ...labels);
  const earlier = before ? sums(before.samples, name, ...labels) : current;
  const seconds = before ? (now.at - before.at) / 1000 : 1;
  for (const [key, value] of current) {
    const grown = value - (earlier.get(key) || 0);
    current.set(key, (grown < 0 ? value : grown) / seconds);
  }
  return current;
}
const total = (map) => [...map.values()].reduce((a, b) => a + b, 0);

// A quantile of a histogram since the last scrape, in seconds: the upper bound of its bucket.
function quantile(now, name, q) {
  const buckets = [...rates(now, name + "_bucket", "le")].map(([le, value]) => [le === "+Inf" ? Infinity : Number(le), value]);
  buckets.sort((a, b) => a[0] - b[0]);
  const all = buckets.length ? buckets[buckets.length - 1][1] : 0;
  if (!all) return null;
  return buckets.find(([, value]) => value >= q * all)[0];
}

// ---------------------------------------------------------------- elements

function text(value) {
  if (value === null) return "–";
  if (value === Infinity) return "> 30 s";
  return value >= 1e6 ? (value / 1e6).toFixed(1) + " M" : value >= 1e4 ? (value / 1e3).toFixed(1) + " k"
    : value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
}
const duration = (s) => s === null || s === Infinity ? text(s) : s < 0.001 ? "≤ " + s * 1e6 + " µs" : s < 1 ? "≤ " + s * 1e3 + " ms" : "≤ " + s + " s";

// How long ago a time was, in words.
function ago(time) {
  const seconds = Math.max(0, Math.round((Date.now() - new Date(time)) / 1000));
  for (const [size, unit] of [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]) {
    const number = Math.floor(seconds / size);
    if (number) return `${number} ${unit}${number > 1 ? "s" : ""} ago`;
  }
  return "now";
}
const moment = (time) => `${ago(time)} (${new Date(time).toLocaleString()})`;

function element(tag, content, className) {
  const made = document.createElement(tag);
  if (content !== undefined) made.append(...[content].flat());
  if (className) made.className = className;
  return made;
}

// A text with `code` in it.
const formatted = (words) => words.split(/(`[^`]*`)/).map((part) => part.startsWith("`") ? element("code", part.slice(1, -1)) : part);

// Show a question or an explanation; resolves to whether the answer was yes.
function dialog(title, content, yes) {
  $("dialog-title").textContent = title;
  $("dialog-text").replaceChildren(...content);
  $("dialog-yes").hidden = !yes;
  $("dialog-yes").textContent = yes || "";
  $("dialog").showModal();
  // The event `close` would come later, when another question may be open already.
  return new Promise((resolve) => {
    $("dialog-form").onsubmit = (event) => resolve(event.submitter.value === "yes");
    $("dialog").oncancel = () => resolve(false);
  });
}

function explained(reason) {
  const button = element("button", reason, "reason");
  button.type = "button";
  button.onclick = () => {
    const found = reasons[reason];
    dialog(reason, found ? [element("p", formatted(found.meaning)), ...(found.action ? [element("p", formatted("What to do: " + found.action))] : [])]
      : [element("p", "The documentation does not explain this reason.")]);
  };
  return button;
}

// Fill a table. A number is aligned right.
function fill(id, rows, none) {
  const body = $(id);
  body.replaceChildren(...rows.map((cells) => {
    const row = element("tr");
    row.append(...cells.map((cell) => typeof cell === "number" ? element("td", text(cell), "n") : element("td", cell)));
    return row;
  }));
  if (!rows.length) {
    const cell = element("td", none, "empty");
    cell.colSpan = 8;
    body.append(element("tr", cell));
  }
}

// ---------------------------------------------------------------- now, and the last hour

// A number now, over its last hour; `series` names the field of a sample, and `now` the value that follows them.
function tile(id, title, series, now, shown) {
  let box = $("tile-" + id);
  if (!box) {
    box = element("div", undefined, "tile");
    box.id = "tile-" + id;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 40");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    svg.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
    box.append(element("small", title), element("b"), svg, element("div", [element("span", "1 h ago"), element("span", "", "top"), element("span", "now")], "axis"));
    $("tiles").append(box);
  }
  const end = Date.now() / 1000;
  const points = [...hour.map((sample) => [sample.at, sample[series]]), [end, now]].filter(([, value]) => value !== null && value !== Infinity);
  const top = Math.max(...points.map(([, value]) => value), 0);
  box.querySelector("b").textContent = shown;
  box.querySelector(".top").textContent = top ? "max " + (series === "confirmed" || series === "answered" ? duration(top) : text(top)) : "";
  box.querySelector("polyline").setAttribute("points",
    points.map(([at, value]) => `${(100 * (1 - (end - at) / 3600)).toFixed(2)},${(39 - 38 * value / (top || 1)).toFixed(2)}`).join(" "));
}

function show(now) {
  const {samples} = now;
  const workers = samples.filter((each) => each.name === "kaa_gateway_nats_up").length;
  const build = samples.find((each) => each.name === "kaa_gateway_build_info");
  $("about").textContent = build ? `version ${build.labels.version}, Python ${build.labels.python}, ${workers} worker${workers > 1 ? "s" : ""}` : "";
  const up = sum(samples, "nats_up");
  $("state").textContent = up === workers ? "serving" : `NATS is away from ${workers - up} of ${workers} workers`;
  $("state").className = up === workers ? "good" : "bad";
  health(now, workers, up);
  const events = rates(now, "events_total", "event", "reason");
  const lost = total(new Map([...events].filter(([key]) => /^(refused|dropped)/.test(key))));
  const [ins, outs] = [total(rates(now, "messages_in_total")), total(rates(now, "messages_out_total"))];
  tile("in", "messages in /s", "messagesIn", ins, text(ins));
  tile("out", "messages out /s", "messagesOut", outs, text(outs));
  tile("connections", "connections", "connections", sum(samples, "connections"), text(sum(samples, "connections")));
  tile("lost", "refused and dropped /s", "lost", lost, text(lost));
  const confirmed = quantile(now, "nats_confirmation_seconds", 0.99), answered = quantile(now, "request_seconds", 0.99);
  tile("confirmed", "confirmed by NATS, p99", "confirmed", confirmed, duration(confirmed));
  tile("answered", "request to answer, p99", "answered", answered, duration(answered));

  const by = (name) => rates(now, name, "protocol");
  const [mi, mo, bi, bo] = ["messages_in_total", "messages_out_total", "bytes_in_total", "bytes_out_total"].map(by);
  fill("protocols", [...sums(samples, "connections", "protocol")].map(([protocol, open]) =>
    [protocol, open, mi.get(protocol) || 0, mo.get(protocol) || 0, (bi.get(protocol) || 0) / 1024, (bo.get(protocol) || 0) / 1024]), "none");
  const bounds = sums(samples, "queue_bound", "queue");
  fill("queues", [...sums(samples, "queue_depth", "queue")].map(([queue, depth]) =>
    [queue, depth, bounds.get(queue), bounds.get(queue) ? 100 * depth / bounds.get(queue) : 0])
    .sort((a, b) => b[3] - a[3]).slice(0, 8), "none");
  const totals = sums(samples, "events_total", "event", "reason");
  fill("events", [...events].map(([key, value]) => [key.split("\t")[0], explained(key.split("\t")[1]), value, totals.get(key)])
    .sort((a, b) => b[2] - a[2] || b[3] - a[3]).slice(0, SHOWN), "nothing so far");
}

// A mark for each extension: by the last messages that were sent to it, and by its stream.
function extensions(now, workers) {
  const {samples} = now;
  const messages = sums(samples, "extension_messages_total", "extension"), stores = sums(samples, "durable_up", "extension");
  const unserved = sums(samples, "extension_unserved_total", "extension");
  return [...messages].map(([name, sent]) => {
    const lost = unserved.get(name) || 0, last = served.get(name) || {sent, lost, good: lost < sent};
    const grown = [sent - last.sent, lost - last.lost];
    // If some messages were taken and others not, the next look shows what is so.
    const good = grown[1] > 0 ? false : grown[0] > 0 ? true : last.good;
    served.set(name, {sent, lost, good});
    if (stores.has(name) && stores.get(name) < workers) return ["bad", `${name}: its stream does not store`];
    return !sent ? ["idle", `${name}: nothing sent yet`] : good ? ["good", name] : ["bad", `${name}: no replica takes messages`];
  });
}

// What the gateway depends on, each with a mark.
function health(now, workers, up) {
  const {samples} = now;
  const marks = [[up === workers ? "good" : "bad", "NATS"]];
  const control = sum(samples, "nats_control_up");
  marks.push([control === workers ? "good" : "bad", "NATS control connection"]);
  marks.push(...extensions(now, workers));
  const silent = rates(now, "identity_unanswered_total", "about");
  for (const [about, rate] of silent) marks.push([rate ? "bad" : "good", `identity of ${about}`]);
  if (total(rates(now, "requests_expired_total"))) marks.push(["warn", "requests are answered too late"]);
  for (const {name, labels, value} of samples) {
    const days = (value - Date.now() / 1000) / 86400;
    if (name === "kaa_gateway_certificate_not_after_seconds" && days < CERTIFICATE_DAYS)
      marks.push([days < 0 ? "bad" : "warn", `certificate ${labels.key} ${days < 0 ? "has expired" : "expires in " + Math.ceil(days) + " days"}`]);
  }
  if (sum(samples, "config_reloads_total") && rates(now, "config_reloads_total", "result").get("refused")) marks.push(["bad", "the configuration was refused"]);
  $("health").replaceChildren(...marks.map(([className, words]) => element("li", words, className)));
}

async function refresh() {
  try {
    const response = await fetch("metrics", {cache: "no-store"});
    if (!response.ok) throw new Error(response.status);
    const now = {at: performance.now(), samples: parse(await response.text())};
    show(now);
    before = now;
  } catch (error) {
    $("state").textContent = "the gateway does not answer";
    $("state").className = "bad";
  }
  setTimeout(refresh, PERIOD);
}

async function remember() {
  try {
    hour = (await ask("history")).samples;
  } catch (error) {
    // The state says already that the gateway does not answer.
  }
  setTimeout(remember, HISTORY_PERIOD);
}

// ---------------------------------------------------------------- replicas

// All replicas of the service instance, with the rates since they were last asked.
async function replicas() {
  try {
    const found = await ask("replicas"), at = performance.now(), earlier = fleet;
    fleet = new Map(found.replicas.map((each) => [each.replica, {...each, at}]));
    const rate = (each, name) => {
      const last = earlier.get(each.replica);
      const grown = last ? each[name] - last[name] : 0;
      return grown > 0 ? 1000 * grown / (at - last.at) : 0;
    };
    fill("replicas", found.replicas.map((each) => [each.replica, element("span", each.state, each.state === "serving" ? "good" : "warn"),
      each.connections, each.sessions, each.endpoints, rate(each, "messagesIn"), rate(each, "messagesOut"), each.version]), "none");
    $("fleet-state").textContent = found.complete ? "" : "of this gateway only: NATS is away";
    $("fleet").hidden = false;
  } catch (error) {
    // Without the token, or if the gateway does not answer, which is said elsewhere.
    $("fleet").hidden = true;
  }
  setTimeout(replicas, REPLICAS_PERIOD);
}

// ---------------------------------------------------------------- devices

async function ask(path, method = "GET") {
  const token = $("token").value;
  const response = await fetch("api/v1/" + path, {method, cache: "no-store", headers: token ? {Authorization: "Bearer " + token} : {}});
  if (response.status === 204) return null;
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail || response.statusText);
  return answer;
}

// The state of a session in a word: HTTP and CoAP devices without an observation are never "connected".
function state(session) {
  if (session.online) return element("span", "connected", "good");
  if (session.protocol === "mqtt") return element("span", "away", "warn");
  return element("span", session.lastSeen ? "last sent " + ago(session.lastSeen) : "sends without a connection");
}

function details(session) {
  const names = session.endpoints.map((each) => `${each.endpointId} (${each.appVersion}: ${text(each.messagesIn)} in, ${text(each.messagesOut)} out)`);
  if (session.endpointCount > names.length) names.push(`and ${session.endpointCount - names.length} more`);
  const proxied = session.proxied;
  const waiting = [["inFlight", "not acknowledged"], ["queued", "queued"], ["waitingMessages", "waiting for an identity"]]
    .filter(([field]) => session[field]).map(([field, words]) => `${session[field]} ${words}`);
  const topics = session.topics || [];
  return [
    ["Session", session.id],
    ["Replica", session.replica],
    ["Address", session.peer],
    ["Protocol", [session.protocol.toUpperCase(), session.version].filter(Boolean).join(" ")],
    ["Encryption", session.tls || (proxied && proxied.tls && "TLS up to the proxy")],
    ["Connected since", session.since && moment(session.since)],
    ["Last seen", session.lastSeen && moment(session.lastSeen)],
    ["Keep-alive", session.keepAlive === 0 ? "none" : session.keepAlive && session.keepAlive + " s"],
    ["Principal", session.principal],
    ["Client", session.client],
    ["Tenant", session.tenant],
    ["Endpoints", names.join(", ")],
    ["Subscriptions", topics.join(", ") + (session.subscriptions > topics.length ? (topics.length ? ` and ${session.subscriptions - topics.length} more` : session.subscriptions) : "")],
    ["Messages", waiting.join(", ")],
    ["Session is kept", session.sessionExpiry ? `${text(session.sessionExpiry)} s after its client has left` : session.clientId !== undefined && "only while connected"],
  ].filter(([, value]) => value);
}

function card(session) {
  const box = element("details", undefined, "session");
  const names = session.endpoints.slice(0, 2).map((each) => each.endpointId);
  if (session.endpointCount > 2) names.push(`and ${session.endpointCount - 2} more`);
  const summary = element("summary", [
    element("strong", session.clientId || session.principal || session.peer || session.id),
    element("span", [session.protocol, session.version].filter(Boolean).join(" ")),
    state(session),
    element("span", names.join(", ")),
  ]);
  const list = element("dl");
  for (const [name, value] of details(session)) list.append(element("dt", name), element("dd", String(value)));
  const end = element("button", "Disconnect");
  end.type = "button";
  end.onclick = async () => {
    const name = session.clientId || session.id;
    const question = element("p", "Its connection is closed, and messages that are kept for it are dropped. It may connect again at once.");
    if (!await dialog(`Disconnect ${name}?`, [question], "Disconnect")) return;
    try {
      await ask("sessions/" + session.id, "DELETE");
      box.remove();
    } catch (error) {
      $("complaint").textContent = error.message;
    }
  };
  box.append(summary, list, end);
  return box;
}

// Show a page of sessions. A request looks at a part of them only, so several may be needed to find one.
async function find(from) {
  const mine = ++search, query = new URLSearchParams({limit: PAGE});
  const what = $("what").value.trim();
  if (what) query.set($("by").value, what);
  $("complaint").textContent = "";
  if (!from) {
    count = 0;
    complete = true;
    $("sessions").replaceChildren();
  }
  try {
    let page = {sessions: [], next: from};
    for (let asked = 0; !asked || (!page.sessions.length && page.next && asked < EMPTY_PAGES); asked++) {
      if (page.next) query.set("from", page.next);
      page = await ask("sessions?" + query);
      // Somebody has pressed Find again meanwhile.
      if (mine !== search) return;
      complete = complete && page.complete;
    }
    $("sessions").append(...page.sessions.map(card));
    count += page.sessions.length;
    next = page.next;
    const absent = !page.sessions.some((session) => session.online || session.protocol !== "mqtt");
    if (what && count === 1 && !next) $("sessions").firstChild.open = true;
    $("found").textContent = (next ? `${count} sessions so far` : !count ? (what ? "No session: the device is not connected." : "No sessions.")
      : `${count} session${count > 1 ? "s" : ""}${absent ? ": the device is not connected" : ""}`) + (complete ? "" : " (not all replicas have answered)");
    await endings(what, absent && !next, mine);
  } catch (error) {
    if (mine !== search) return;
    $("found").textContent = "";
    next = null;
    $("complaint").textContent = error.message;
  }
  $("more").hidden = !next;
}

// The connections that have ended; of one client if its identifier is looked for.
async function endings(what, opened, mine) {
  const query = new URLSearchParams(what && $("by").value === "client" ? {client: what} : {});
  const found = (await ask("endings?" + query)).endings;
  if (mine !== search) return;
  fill("endings", found.map((each) => [element("span", ago(each.at)), each.clientId || "", each.peer || "", each.replica,
    explained(each.reason)]), "none that the gateways remember");
  $("ended-count").textContent = `(${found.length})`;
  $("ended").open = Boolean(what) && opened;
}

$("find").onsubmit = (event) => { event.preventDefault(); find(); };
$("more").onclick = () => find(next);
fetch("api/v1/reasons").then((response) => response.json()).then((found) => { reasons = found; });
refresh();
remember();
replicas();
find();
