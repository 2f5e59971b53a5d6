// Timers. The queue is here; the engine sleeps for as long as tick says.
const timers = []; // {id, due, delay, turn, handler, args, interval}, sorted by due, then by age
let nextTimer = 1;
let turn = 0; // what runs between two timers is one turn
let runningTimer = null;

function setTimeout(handler, delay = 0, ...args) {
  return addTimer("setTimeout", arguments.length, handler, delay, args, false);
}

function setInterval(handler, delay = 0, ...args) {
  return addTimer("setInterval", arguments.length, handler, delay, args, true);
}

function clearTimeout(id = undefined) {
  if (id === undefined || id === null) return;
  id = Number(id);
  if (runningTimer !== null && runningTimer.id === id) runningTimer.interval = -1;
  const at = timers.findIndex((t) => t.id === id);
  if (at >= 0) timers.splice(at, 1);
}

function clearInterval(id = undefined) {
  clearTimeout(id);
}

function addTimer(what, given, handler, delay, args, repeat) {
  needArguments(given, 1, what);
  // Running text as code is not offered: it is eval under another name.
  if (typeof handler !== "function") throw new TypeError(`${what}: the handler must be a function`);
  onlyWhileServing(what);
  delay = Number(delay);
  // As the HTML standard's long: what does not fit 31 bits is due at once.
  delay = delay >= 1 && delay <= 0x7fffffff ? Math.trunc(delay) : 0;
  const id = nextTimer++;
  queueTimer({ id, due: __native.monotonic() + delay, delay, turn, handler, args, interval: repeat ? Math.max(delay, 1) : -1 });
  return id;
}

// queueTimer keeps the order of due. Of timers that were set in one turn, the shorter
// comes first, however long the turn took: else the order would depend on how busy the
// machine is.
function queueTimer(t) {
  let at = timers.length;
  while (at > 0 && (timers[at - 1].due > t.due || timers[at - 1].turn === t.turn && timers[at - 1].delay > t.delay)) at--;
  for (let i = at; i < timers.length; i++) timers[i].due = Math.max(timers[i].due, t.due);
  timers.splice(at, 0, t);
}

// tick runs the first timer when it is due; see NATIVES.md.
function tick() {
  if (timers.length === 0) return -1;
  const wait = timers[0].due - __native.monotonic();
  if (wait > 0) return wait;
  const t = timers.shift();
  turn++;
  runningTimer = t;
  try {
    apply(t.handler, globalThis, t.args);
  } catch (e) {
    reportError(e);
  }
  runningTimer = null;
  if (t.interval >= 0) {
    t.due = __native.monotonic() + t.interval;
    t.delay = t.interval;
    t.turn = turn;
    queueTimer(t);
  }
  return 0;
}

const enqueueMicrotask = globalThis.queueMicrotask;

function queueMicrotask(callback) {
  needArguments(arguments.length, 1, "queueMicrotask");
  if (typeof callback !== "function") throw new TypeError("queueMicrotask: the callback must be a function");
  enqueueMicrotask(() => {
    try {
      callback();
    } catch (e) {
      reportError(e);
    }
  });
}

for (const f of [setTimeout, setInterval, clearTimeout, clearInterval, queueMicrotask]) globalFunction(f);
