"use strict";
// The search page. State that matters is in the address: q, not, within, seen, heard, view, v, t.

const $ = (id) => document.getElementById(id);
const COUNTS = new Intl.NumberFormat("en");
const files = new Map(); // video_id → promise of what the server knows of it
const state = {
  found: "", // what was said of the last search
  library: null,
  upload: null, // {blob, name, kind}: a file to search with
  like: null, // {seen or heard: window_id, words}
  hits: [], // moments in the order of the page: {video_id, window_id, start, end, button, title}
  current: -1, // of hits, or -1 where something else plays
  playing: null, // {file, title, part, copied}
  asking: null, // the search that is under way
  map: null,
};

// ── small things ───────────────────────────────────────────────────────────────────────────────

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key === "for" || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

function clock(seconds) {
  const whole = Math.max(0, seconds);
  const h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60, s = Math.floor(whole % 60);
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

function lasting(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} seconds`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} minutes`;
  return `${COUNTS.format(Math.round(seconds / 3600))} hours`;
}

function say(words) { $("status").textContent = words; }
function complain(words) { $("problem").textContent = words; }

async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer; is vatt serve still running?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `The server answered ${answer.status}.`);
  return body;
}

function fileOf(id) {
  if (!files.has(id)) {
    const asked = ask(`/api/files/${id}`);
    asked.catch(() => files.delete(id)); // asked anew the next time
    files.set(id, asked);
  }
  return files.get(id);
}

const strip = (id, start, end, frames) =>
  `/strips/${id}/${Math.round(start * 1000)}-${Math.round(end * 1000)}-${frames}.jpg`;

// ── searching ──────────────────────────────────────────────────────────────────────────────────

function query() {
  const asked = new URLSearchParams();
  for (const name of ["q", "not", "within"]) {
    const words = $(name).value.trim();
    if (words) asked.set(name, words);
  }
  if (state.like?.seen) asked.set("seen", state.like.seen);
  if (state.like?.heard) asked.set("heard", state.like.heard);
  return asked;
}

function remember(push) {
  const asked = query();
  if (!$("map").hidden) asked.set("view", "map");
  if (state.playing) {
    asked.set("v", state.playing.file.video_id);
    asked.set("t", state.playing.at.toFixed(1));
  }
  const address = asked.size ? `/?${asked}` : "/";
  history[push ? "pushState" : "replaceState"](null, "", address);
  document.title = `${asked.get("q") || "vatt search"} – ${state.library?.name ?? "library"}`;
}

async function search({ push = true } = {}) {
  state.asking?.abort();
  const asking = (state.asking = new AbortController());
  const asked = query();
  complain("");
  if (!asked.get("q") && !state.upload && !state.like) {
    show([]);
    $("welcome").hidden = false;
    say(asked.size ? "Say also what is to be found." : "");
    if (push) remember(true);
    return;
  }
  view("results");
  if (push) remember(true);
  $("results").setAttribute("aria-busy", "true");
  say(state.upload ? `Reading ${state.upload.name} …` : "Searching …");
  const slow = setTimeout(() => say("Searching … the first search waits for the model."), 1500);
  try {
    const options = { signal: asking.signal };
    if (state.upload) {
      asked.set("kind", state.upload.kind);
      asked.set("name", state.upload.name.slice(0, 200));
      Object.assign(options, { method: "POST", body: state.upload.blob });
      options.headers = { "content-type": "application/octet-stream" };
    }
    const found = await ask(`/api/search?${asked}`, options);
    $("welcome").hidden = true;
    show(found.data);
    const moments = state.hits.length;
    const count = moments === 1 ? "1 moment" : `${moments} moments`;
    const pool = `${COUNTS.format(found.search_pool.total_count)} files`;
    const notes = found.notes.map((note) => ` ${note[0].toUpperCase()}${note.slice(1)}.`).join("");
    say(state.found =
      moments
        ? `${count} in ${found.data.length === 1 ? "1 file" : `${found.data.length} files`}, of ${pool}; best first. Scores compare only within one search.${notes}`
        : `Nothing found in ${pool}.${notes} Try other words, or search within more files.`
    );
  } catch (error) {
    if (error.name === "AbortError") return;
    show([]);
    $("welcome").hidden = true;
    say("Nothing to show.");
    complain(error.message);
  } finally {
    clearTimeout(slow);
    if (state.asking === asking) $("results").removeAttribute("aria-busy");
  }
}

function show(groups) {
  state.hits = [];
  state.current = -1;
  const scores = groups.flatMap((group) => group.clips.map((clip) => clip.score));
  const low = Math.min(...scores), high = Math.max(...scores);
  $("files").replaceChildren(
    ...groups.map((group) => {
      const line = make("div", { className: "line", "aria-hidden": "true" });
      const moments = make("ol", { className: "moments" });
      const where = make("p", { className: "where" }, group.file);
      const item = make(
        "li", { className: "file" }, make("h2", {}, group.title), group.file === group.title ? "" : where, line, moments
      );
      const clips = [...group.clips];
      for (const clip of clips) moments.append(moment(group, clip, low, high));
      fileOf(group.video_id).then((file) => marks(line, file.duration, clips)).catch((error) => {
        line.replaceWith(make("p", { className: "where" }, error.message));
      });
      return item;
    })
  );
}

function marks(line, duration, clips) {
  line.replaceChildren(
    ...clips.map((clip) => {
      const mark = make("span");
      mark.style.left = `${(100 * clip.start) / duration}%`;
      mark.style.width = `${(100 * (clip.end - clip.start)) / duration}%`;
      return mark;
    })
  );
}

function moment(group, clip, low, high) {
  const when = `${clock(clip.start)} – ${clock(clip.end)}`;
  const image = make("img", {
    src: strip(group.video_id, clip.start, clip.end, 6), loading: "lazy", decoding: "async",
    width: 768, height: 96, alt: "",
  });
  image.addEventListener("error", () => { image.alt = "No frames of this could be read."; });
  const button = make(
    "button",
    { type: "button", className: "hit", "aria-label": `Play ${group.title} at ${when}${clip.caption ? `: ${clip.caption}` : ""}` },
    image
  );
  const number = state.hits.length;
  state.hits.push({ ...clip, video_id: group.video_id, title: group.title, button });
  button.addEventListener("click", () => playHit(number));
  const share = high > low ? (clip.score - low) / (high - low) : 1;
  const like = (how, words) => {
    const more = make("button", { type: "button", "aria-label": `${words}: ${group.title} at ${when}` }, words);
    more.addEventListener("click", () => {
      state.like = { [how]: clip.window_id, words: `${words} (${clock(clip.start)})` };
      state.upload = null;
      $("q").value = "";
      chips();
      search();
      $("results").focus();
    });
    return more;
  };
  const said = make(
    "p", { className: "said" },
    make("span", { className: "when" }, when),
    make("meter", { min: 0, max: 1, value: 0.05 + 0.95 * share, title: `score ${clip.score.toFixed(3)}`, "aria-label": `score ${clip.score.toFixed(3)}` }),
    make("span", { className: "caption" }, clip.caption ? `“${clip.caption}”` : ""),
    like("seen", "Looks like this")
  );
  if (state.library?.has_audio) {
    fileOf(group.video_id).then((file) => { if (file.has_audio) said.append(like("heard", "Sounds like this")); }).catch(() => {});
  }
  return make("li", { className: "moment" }, button, said);
}

function chips() {
  const listed = [];
  const chip = (words, remove, ...more) => {
    const off = make("button", { type: "button", "aria-label": `Do not search with ${words}` }, "×");
    off.addEventListener("click", () => { remove(); chips(); search(); $("q").focus(); });
    return make("li", {}, make("span", {}, words), ...more, off);
  };
  if (state.upload) {
    const more = [];
    if (state.upload.blob.type.startsWith("video/")) {
      const what = make("select", { "aria-label": "What of the clip is compared" });
      what.append(new Option("its video", "any"), new Option("its audio", "audio"));
      what.value = state.upload.kind;
      what.addEventListener("change", () => { state.upload.kind = what.value; search(); });
      more.push(what);
    }
    listed.push(chip(state.upload.name, () => { state.upload = null; }, ...more));
  }
  if (state.like) listed.push(chip(state.like.words, () => { state.like = null; }));
  $("chips").replaceChildren(...listed);
}

function searchWith(blob, name, kind = "any") {
  const most = state.library?.upload_bytes ?? Infinity;
  if (!blob.size) return complain(`${name}: the file is empty.`);
  if (blob.size > most) {
    return complain(`${name} is too large to search with: at most ${Math.round(most / 2 ** 20)} MB.`);
  }
  state.upload = { blob, name, kind };
  state.like = null;
  chips();
  return search();
}

// ── recording ──────────────────────────────────────────────────────────────────────────────────

let recorder = null;

async function record() {
  if (recorder) return recorder.stop();
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) {
    return complain("This browser records audio only for pages of this machine (localhost) or by https.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch {
    return complain("No microphone could be used: there is none, or it was not allowed.");
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    stream.getTracks().forEach((track) => track.stop());
    const { mimeType } = recorder;
    recorder = null;
    $("record").setAttribute("aria-pressed", "false");
    $("record").textContent = "Record audio";
    searchWith(new Blob(parts, { type: mimeType }), "the recording", "audio");
  });
  recorder.start();
  $("record").setAttribute("aria-pressed", "true");
  $("record").textContent = "Stop recording";
  say("Recording … stop to search with it; it stops by itself after 20 seconds.");
  const mine = recorder;
  setTimeout(() => { if (recorder === mine) mine.stop(); }, 20000);
}

// ── playing ────────────────────────────────────────────────────────────────────────────────────

const video = $("video");

function playHit(number) {
  const hit = state.hits[number];
  if (!hit) return;
  state.current = number;
  for (const one of state.hits) one.button.removeAttribute("aria-current");
  hit.button.setAttribute("aria-current", "true");
  hit.button.focus({ preventScroll: true });
  hit.button.scrollIntoView({ block: "nearest" });
  play(hit.video_id, hit.start);
}

async function play(id, at) {
  let file;
  try {
    file = await fileOf(id);
  } catch (error) {
    complain(error.message);
    return;
  }
  const same = state.playing?.file.video_id === id && !state.playing.copied && video.src;
  state.playing = { file, at, copied: same ? false : !file.plays, part: -1 };
  $("player").hidden = false;
  $("playing").textContent = file.title;
  $("seek").max = file.duration;
  $("play-note").textContent = "";
  $("copying").hidden = true;
  marks($("marks"), file.duration, state.hits.filter((hit) => hit.video_id === id));
  remember(false);
  if (state.playing.copied) return playCopy(at);
  if (!same) video.src = `/media/${id}`;
  video.currentTime = at;
  return begin();
}

async function begin() {
  try {
    await video.play();
    $("play-note").textContent = state.playing?.copied ? "A copy, in smaller form." : "";
  } catch (error) {
    if (error.name === "NotAllowedError") $("play-note").textContent = "Press space, or the play button, to play.";
  }
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function copyOf(file, part, tell) {
  for (;;) {
    const copy = await ask(`/api/copies/${file.video_id}/${part}`, { method: "POST" });
    if (copy.state === "failed") throw new Error(copy.reason);
    if (copy.state === "ready") return copy;
    if (tell && !tell(copy.share)) return null;
    await wait(250);
  }
}

async function playCopy(at, goOn = true) {
  const mine = state.playing;
  const length = state.library.copy_s;
  const part = Math.min(Math.floor(at / length), Math.max(0, Math.ceil(mine.file.duration / length) - 1));
  mine.at = at;
  if (mine.part !== part) {
    video.pause();
    mine.part = part;
    const tell = (share) => {
      if (state.playing !== mine || mine.part !== part) return false;
      $("play-note").textContent = "Browsers do not play this format; a copy of this part is being made …";
      $("copying").hidden = false;
      $("copying").value = share;
      return true;
    };
    let copy;
    try {
      copy = await copyOf(mine.file, part, tell);
    } catch (error) {
      if (state.playing === mine) $("play-note").textContent = `No copy could be made: ${error.message}`;
      copy = null;
    }
    if (state.playing !== mine || mine.part !== part) return;
    $("copying").hidden = true;
    if (!copy) return;
    $("play-note").textContent = "";
    video.src = `/copies/${mine.file.video_id}/${part}.mp4`;
  }
  video.currentTime = at - part * length;
  if (goOn) await begin();
}

const position = () => {
  const { playing } = state;
  return video.currentTime + (playing?.copied ? Math.max(0, playing.part) * state.library.copy_s : 0);
};

function closePlayer() {
  if ($("player").hidden) return;
  video.pause();
  video.removeAttribute("src");
  video.load();
  state.playing = null;
  $("player").hidden = true;
  remember(false);
  state.hits[state.current]?.button.focus();
}

video.addEventListener("error", () => {
  const { playing } = state;
  if (!playing || !video.getAttribute("src")) return;
  if (playing.copied) {
    $("play-note").textContent = "The copy cannot be played.";
    return;
  }
  playing.copied = true; // this browser plays less than others
  playCopy(playing.at);
});
video.addEventListener("ended", () => {
  const { playing } = state;
  const next = playing?.copied ? (playing.part + 1) * state.library.copy_s : Infinity;
  if (next < (playing?.file.duration ?? 0)) playCopy(next);
});
video.addEventListener("timeupdate", () => {
  const { playing } = state;
  if (!playing || !video.getAttribute("src") || video.readyState < 1) return;
  playing.at = position();
  if (document.activeElement !== $("seek")) $("seek").value = playing.at;
  $("seek").setAttribute("aria-valuetext", clock(playing.at));
  const length = state.library.copy_s;
  const near = playing.copied && video.duration - video.currentTime < 12;
  if (near && playing.ahead !== playing.part + 1 && (playing.part + 1) * length < playing.file.duration) {
    playing.ahead = playing.part + 1;
    ask(`/api/copies/${playing.file.video_id}/${playing.ahead}`, { method: "POST" }).catch(() => {});
  }
});
video.addEventListener("pause", () => { if (state.playing) remember(false); });
$("seek").addEventListener("change", () => {
  const at = Number($("seek").value);
  if (!state.playing) return;
  if (state.playing.copied) playCopy(at);
  else video.currentTime = at;
});

// ── the map ────────────────────────────────────────────────────────────────────────────────────

const canvas = $("points");

async function openMap() {
  view("map");
  remember(true);
  await loadMap();
}

async function loadMap() {
  if (state.map) return draw();
  try {
    for (;;) {
      const found = await ask("/api/map");
      if (found.state === "ready") {
        state.map = { ...found, at: -1 };
        break;
      }
      say("Making the map …");
      await wait(500);
    }
    const { points, step } = state.map;
    say(`The map shows ${COUNTS.format(points.length)} moments${step > 1 ? `, one of every ${step}` : ""}.`);
    draw();
  } catch (error) {
    complain(error.message);
  }
}

const colour = (number) => `hsl(${(number * 137.508) % 360} 65% 55%)`;
const place = (point) => {
  const { clientWidth: w, clientHeight: h } = canvas;
  return [14 + point[0] * (w - 28), 14 + point[1] * (h - 28)];
};

function draw() {
  if (!state.map || $("map").hidden) return;
  const dense = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * dense;
  canvas.height = canvas.clientHeight * dense;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  const found = (point) => state.hits.some((hit) =>
    hit.video_id === state.map.files[point[2]].video_id && point[3] >= hit.start * 1000 - 1 && point[3] < hit.end * 1000);
  state.map.points.forEach((point, number) => {
    const [x, y] = place(point);
    pen.beginPath();
    pen.arc(x, y, number === state.map.at ? 7 : 4, 0, 2 * Math.PI);
    pen.fillStyle = colour(point[2]);
    pen.fill();
    if (number === state.map.at || found(point)) {
      pen.lineWidth = 2.5;
      pen.strokeStyle = getComputedStyle(document.body).color;
      pen.stroke();
    }
  });
}

function pointAt(number) {
  if (!state.map || number === state.map.at) return;
  state.map.at = number;
  $("tip").hidden = number < 0;
  if (number >= 0) {
    const point = state.map.points[number], file = state.map.files[point[2]];
    const [x, y] = place(point), seconds = point[3] / 1000;
    const middle = seconds + state.library.clip_s / 2;
    $("tip-image").src = strip(file.video_id, middle, middle, 1);
    $("tip-words").textContent = `${file.title}, ${clock(seconds)}`;
    const right = x + 220 > canvas.clientWidth;
    $("tip").style.left = `${right ? Math.max(0, x - 205) : x + 12}px`;
    $("tip").style.top = `${Math.min(y, canvas.clientHeight - 150)}px`;
  }
  draw();
}

function nearest(event) {
  if (!state.map) return -1;
  const box = canvas.getBoundingClientRect();
  let best = -1, least = 14 ** 2;
  state.map.points.forEach((point, number) => {
    const [x, y] = place(point);
    const far = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
    if (far < least) [best, least] = [number, far];
  });
  return best;
}

function playPoint() {
  const point = state.map?.points[state.map.at];
  if (point) play(state.map.files[point[2]].video_id, point[3] / 1000);
}

canvas.addEventListener("pointermove", (event) => pointAt(nearest(event)));
canvas.addEventListener("pointerleave", () => pointAt(-1));
canvas.addEventListener("click", (event) => { pointAt(nearest(event)); playPoint(); });
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (step && state.map) {
    const count = state.map.points.length;
    pointAt((state.map.at + step + count) % count);
    event.preventDefault();
    event.stopPropagation();
  } else if (event.key === "Enter") playPoint();
});
addEventListener("resize", draw);

function view(name) {
  const onMap = name === "map";
  $("map").hidden = !onMap;
  $("results").hidden = onMap;
  $("show-map").setAttribute("aria-pressed", String(onMap));
  $("show-results").setAttribute("aria-pressed", String(!onMap));
}

// ── keys, dropping, the rest ───────────────────────────────────────────────────────────────────

function move(step) {
  const focused = state.hits.findIndex((hit) => hit.button === document.activeElement);
  const from = focused >= 0 ? focused : state.current;
  const to = Math.min(Math.max(from + step, 0), state.hits.length - 1);
  state.hits[to]?.button.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target, key } = event;
  const typing = target.matches("input:not([type=range]), textarea, select");
  if (key === "Escape") {
    if (typing) target.blur();
    else closePlayer();
    return;
  }
  if (typing) {
    if (key === "ArrowDown" && target === $("q") && state.hits.length) {
      move(1);
      event.preventDefault();
    }
    return;
  }
  const ranging = target.matches("input, video");
  if (key === "/") $("q").select();
  else if ((key === "ArrowDown" || key === "ArrowUp") && !ranging && state.hits.length) move(key === "ArrowDown" ? 1 : -1);
  else if (key === "[" && state.hits.length) playHit(Math.max(0, state.current - 1));
  else if (key === "]" && state.hits.length) playHit(Math.min(state.hits.length - 1, state.current + 1));
  else if (key === " " && state.playing && !target.matches("button:not(.hit), summary, video, a")) {
    if (video.paused) begin();
    else video.pause();
  } else return;
  event.preventDefault();
});

$("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
$("q").addEventListener("search", () => { if (!$("q").value && !state.upload && !state.like) search(); });
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) searchWith(file, file.name);
  $("file").value = "";
});
$("record").addEventListener("click", record);
$("show-map").addEventListener("click", openMap);
$("show-results").addEventListener("click", () => { view("results"); say(state.found); remember(true); });
$("previous").addEventListener("click", () => playHit(Math.max(0, state.current - 1)));
$("next").addEventListener("click", () => playHit(Math.min(state.hits.length - 1, state.current + 1)));
$("close").addEventListener("click", closePlayer);
$("show-keys").addEventListener("click", () => {
  $("keys").hidden = !$("keys").hidden;
  $("show-keys").setAttribute("aria-expanded", String(!$("keys").hidden));
});
$("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
  draw();
});

let over = 0;
const holdsFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragenter", (event) => { if (holdsFile(event)) { over += 1; $("drop").hidden = false; } });
addEventListener("dragleave", (event) => { if (holdsFile(event)) { over -= 1; $("drop").hidden = over > 0; } });
addEventListener("dragover", (event) => { if (holdsFile(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!holdsFile(event)) return;
  event.preventDefault();
  over = 0;
  $("drop").hidden = true;
  const [file] = event.dataTransfer.files;
  if (file) searchWith(file, file.name);
});

async function readAddress() {
  const asked = new URLSearchParams(location.search);
  for (const name of ["q", "not", "within"]) $(name).value = asked.get(name) ?? "";
  $("more").open = asked.has("not") || asked.has("within");
  const how = asked.has("seen") ? "seen" : asked.has("heard") ? "heard" : null;
  state.like = how && { [how]: asked.get(how), words: how === "seen" ? "Looks like a moment" : "Sounds like a moment" };
  state.upload = null;
  chips();
  await search({ push: false });
  if (asked.get("view") === "map") {
    view("map");
    await loadMap();
  }
  const id = asked.get("v"), at = Number(asked.get("t"));
  if (id && Number.isFinite(at)) {
    const near = state.hits.findIndex((hit) => hit.video_id === id && hit.start <= at && at < hit.end);
    state.current = near;
    state.hits[near]?.button.setAttribute("aria-current", "true");
    await play(id, Math.max(0, at));
  } else if (!id) closePlayer();
}

addEventListener("popstate", readAddress);

(async () => {
  const kept = localStorage.getItem("theme");
  if (kept) document.documentElement.dataset.theme = kept;
  try {
    state.library = await ask("/api/library");
    const { name, files: count, seconds } = state.library;
    $("name").textContent = name;
    $("facts").textContent = `${COUNTS.format(count)} files, ${lasting(seconds)}`;
    if (!count) say("The library is empty: embed some files first.");
  } catch (error) {
    complain(error.message);
    return;
  }
  await readAddress();
})();
