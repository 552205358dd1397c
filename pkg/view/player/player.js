// The view that moves: a recorded run or a live session as a sequence diagram
// with what the tables and queues hold at each step.
//
// One classic script, so that it can stand in a notebook's output. It mounts
// beside itself, defines no global and loads nothing. Every string of a
// recording was written by a program under test: it reaches the page as text
// only, after clean().
(() => {
"use strict";

// ---- What is shown and said, without a page -----------------------------

const VERSION = 1;
const ACTING = new Set(["write", "commit", "rollback", "publish", "ack", "call"]);
const DEADLY = new Set(["kill", "freeze"]);
const HARMLESS = new Set(["duplicate", "delay", "expire", "hold", "unrouted"]); // the message passes all the same
const FAULTS = ["kill", "cut", "blackhole", "nack", "reject", "fail", "shutdown", "duplicate", "delay", "expire"];
const MOST_SLOTS = 8, MOST_BARS = 5;

const ACTS = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;

// A character that would act on the text around it becomes one that shows.
// Joiners stay: emoji and some scripts need them.
function visible(c) {
	const n = c.codePointAt(0);
	if (n < 0x20) return String.fromCharCode(0x2400 + n);
	if (n === 0x7f) return "\u2421";
	return n === 0x200c || n === 0x200d ? c : "\ufffd";
}

function clean(s) {
	// Many marks on one letter scribble over the lines above.
	return s.replace(ACTS, visible).replace(/(\p{M}{3})\p{M}+/gu, "$1");
}

// line makes one line of s, of at most max characters.
function line(s, max = 200) {
	s = clean(str(s).slice(0, 4 * max).replace(/\s+/g, " ").trim());
	if (s.length <= max) return s;
	const all = [...s];
	return all.length <= max ? s : all.slice(0, max - 1).join("").trimEnd() + "…";
}

// block keeps the lines of s.
function block(s, max = 20000) {
	const t = str(s), cut = t.slice(0, max);
	return cut.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n").map(clean).join("\n") + (cut.length < t.length ? "…" : "");
}

const str = (s) => (typeof s === "string" ? s : s === null || s === undefined ? "" : typeof s === "object" ? JSON.stringify(s) : String(s));
const num = (n) => (Number.isFinite(n) ? n : 0);
const list = (a) => (Array.isArray(a) ? a.filter((x) => x !== null && x !== undefined) : []);
const objects = (a) => list(a).filter((x) => typeof x === "object");

// fill puts values in place of the names in braces. A text of two is for one
// thing and for any other number of them.
function fill(text, values = {}) {
	if (Array.isArray(text)) text = values.n === 1 ? text[0] : text[1];
	return str(text).replace(/\{(\w+)\}/g, (_, k) => (typeof values[k] === "number" ? values[k].toLocaleString("en") : str(values[k])));
}

// shape makes what takes an object as it came, and gives one with these
// numbers and these strings.
const shape = (numbers, strings) => {
	const ns = numbers.split(" "), ss = strings.split(" ");
	return (o) => {
		const out = {};
		for (const k of ns) out[k] = num(o[k]);
		for (const k of ss) out[k] = str(o[k]);
		return out;
	};
};
const bare = shape("seq process conn index time", "protocol service type name effect detail fault id");
const message = (m) => ({ ...bare(m), server: str(m.protocol) + str(m.service), dir: m.dir === "<" ? "<" : ">", step: !!m.step, tag: num(m.delivery_tag) });
const life = shape("process slot from to", "work end");
const breach = shape("after", "invariant detail says");
const outcome = shape("pruned", "at message fault outcome violation detail then");
const thing = (t) => ({
	kind: t.kind === "queue" ? "queue" : "table", name: str(t.name), columns: list(t.columns).map(str),
	rows: list(t.rows).filter(Array.isArray).map((r) => r.map(str)), more: num(t.more), note: str(t.note),
});
// Of thousands of scenes few are ever looked at.
const scene = (sc) => {
	let things;
	return { after: num(sc.after), get things() { return things || (things = objects(sc.things).map(thing)); } };
};

// normalize takes a recording as it came; null when it is of another version.
function normalize(rec) {
	if (!rec || typeof rec !== "object" || rec.version !== VERSION) return null;
	const trace = (t) => {
		const messages = objects(t && t.messages).map(message);
		if (messages.some((m, i) => i > 0 && m.seq < messages[i - 1].seq)) messages.sort((a, b) => a.seq - b.seq);
		return { messages, dropped: num(t && t.dropped) };
	};
	return {
		title: str(rec.title), trace: trace(rec.trace),
		scenes: objects(rec.scenes).map(scene).sort((a, b) => a.after - b.after),
		lives: objects(rec.lives).map(life),
		broken: objects(rec.broken).map(breach),
		ghost: rec.ghost && typeof rec.ghost === "object" ? { name: str(rec.ghost.name), trace: trace(rec.ghost.trace) } : null,
		points: objects(rec.points).map((p) => ({ ...outcome(p), pruned: !!p.pruned })),
	};
}

const pointOf = (m) => "p" + m.process + "." + m.protocol + m.conn + m.dir + m.index;

// stepName is what stands on an arrow. The number tells publishes of one name
// apart; people find it again in the confirm.
function stepName(m) {
	const name = line(m.name || m.type, 120);
	return m.effect === "publish" && m.tag ? name + " #" + m.tag : name;
}

// sameName leaves out what differs from run to run.
const sameName = (m) => line(m.name || m.type, 120).replace(/[#≤]?\d+/g, "#");

const begins = (name) => /^(BEGIN|START TRANSACTION)/i.test(name);
const connection = (m) => m.process + m.protocol + m.conn;

// upTo counts the elements whose key is at most most.
function upTo(all, most, key) {
	let lo = 0, hi = all.length;
	while (lo < hi) {
		const mid = (lo + hi) >> 1;
		if (key(all[mid]) <= most) lo = mid + 1; else hi = mid;
	}
	return lo;
}

// arrivals tells where faults struck and which messages never arrived.
function arrivals(msgs) {
	const dead = new Set(), silent = new Set();
	return msgs.map((m) => {
		const stream = connection(m) + m.dir;
		let struck = m.fault, stopped = dead.has(m.process) || silent.has(stream);
		if (DEADLY.has(struck)) {
			stopped = true;
			dead.add(m.process);
		} else if (struck === "blackhole") {
			if (stopped) struck = ""; // said once, where it began
			stopped = true;
			silent.add(stream);
		} else if (struck && !HARMLESS.has(struck)) {
			stopped = true;
		}
		return { struck, stopped };
	});
}

// lanesOf gives each slot a lane. Without lives, a process takes the lane of
// one that had ended before it began.
function lanesOf(rec, msgs, W) {
	const first = new Map(), last = new Map();
	msgs.forEach((m, i) => {
		if (!first.has(m.process)) first.set(m.process, i);
		last.set(m.process, i);
	});
	const slots = [], slotOf = new Map();
	const put = (l, at) => {
		if (!slots[at]) slots[at] = { lives: [] };
		slots[at].lives.push(l);
		slotOf.set(l.process, at);
	};
	if (rec.lives.length) {
		const order = [...new Set(rec.lives.map((l) => l.slot))].sort((a, b) => a - b);
		for (const l of rec.lives) put({ ...l, known: true }, Math.min(order.indexOf(l.slot), MOST_SLOTS - 1));
	}
	for (const [p, i] of first) {
		if (slotOf.has(p)) continue;
		let at = slots.findIndex((s) => s.lives.every((l) => !l.known && last.get(l.process) < i));
		if (at < 0) at = Math.min(slots.length, MOST_SLOTS - 1);
		const before = slots[at] ? slots[at].lives.at(-1) : null;
		if (before && !before.known && !before.end) {
			before.to = msgs[last.get(before.process)].seq;
			before.end = "?";
		}
		put({ process: p, work: "", slot: at, from: before ? msgs[i].seq - 1 : 0, to: 0, end: "", known: false }, at);
	}
	const names = new Map();
	slots.forEach((s, i) => {
		s.name = line(s.lives[0].work, 24) || fill(W.process, { n: s.lives[0].process });
		s.crowded = i === MOST_SLOTS - 1 && new Set(s.lives.map((l) => l.slot)).size > 1;
		if (s.crowded) s.name = W.moreProcesses;
		names.set(s.name, (names.get(s.name) || 0) + 1);
	});
	const count = new Map();
	for (const s of slots) {
		if (names.get(s.name) < 2) continue;
		count.set(s.name, (count.get(s.name) || 0) + 1);
		s.name = fill(W.laneTwin, { work: s.name, n: count.get(s.name) });
	}
	return { slots, slotOf };
}

// follow tells which writes were not committed yet when they passed, and what
// became of their transactions. A transaction ends with its COMMIT, not with
// the answer: from then on a reader from outside sees it.
function follow(msgs, arrived, gone) {
	const spans = [], spanOf = new Array(msgs.length), open = new Map(), closed = new Map();
	const end = (c, at, fate) => {
		const t = open.get(c);
		if (!t) return;
		t.last = at;
		t.fate = fate;
		closed.set(c, t);
		open.delete(c);
	};
	const begin = (m, c, at) => {
		if (!open.has(c)) {
			const t = { process: m.process, conn: m.conn, first: at, last: at, fate: "open", writes: [], begun: begins(m.name) };
			open.set(c, t);
			spans.push(t);
		}
		return open.get(c);
	};
	const drop = (process, at) => {
		for (const [c, t] of open) if (t.process === process) end(c, at, "dropped");
	};
	msgs.forEach((m, i) => {
		const c = connection(m), { struck, stopped } = arrived[i];
		if (DEADLY.has(struck)) drop(m.process, i);
		else if (struck === "cut" || struck === "shutdown") end(c, i, "dropped");
		if (!stopped && m.protocol === "pg") {
			if (m.dir === "<") {
				if (/ rolled back$/.test(m.name)) {
					if (closed.has(c)) closed.get(c).fate = "dropped";
				} else if (m.type === "ErrorResponse") {
					end(c, i, "dropped");
				}
			} else if (m.effect === "commit") {
				spanOf[i] = begin(m, c, i);
				if (!begins(m.name) && !/^(COMMIT|END|sync)/i.test(m.name) && !spanOf[i].writes.length) spanOf[i].writes.push(i);
				end(c, i, "kept");
			} else if (m.effect === "rollback") {
				spanOf[i] = open.get(c);
				end(c, i, "dropped");
			} else if (begins(m.name)) {
				spanOf[i] = begin(m, c, i);
			} else if (m.effect === "write") {
				spanOf[i] = begin(m, c, i);
				spanOf[i].writes.push(i);
			} else {
				spanOf[i] = open.get(c);
			}
		}
		for (const p of gone.get(i) || []) drop(p, i);
	});
	for (const t of open.values()) t.last = msgs.length - 1;
	return { spans, spanOf };
}

// transactions tells what is not committed after step i, and what the step
// decided.
function transactions(model, i) {
	const out = { open: [], kept: [], dropped: [] };
	for (const t of model.spans) {
		if (t.first > i) continue;
		const part = { process: t.process, conn: t.conn, writes: t.writes.filter((w) => w <= i) };
		if (t.fate === "open" || t.last > i) out.open.push(part);
		else if (t.last === i) out[t.fate].push(part);
	}
	return out;
}

// build lays a recording out: lanes, and rows of one height from top to
// bottom. Nothing that draws decides what is shown.
function build(rec, W, both, waiting = []) {
	const raw = rec.trace.messages;
	const anyStep = raw.some((m) => m.step);
	const msgs = anyStep ? raw.filter((m) => m.step || m.fault) : raw;
	const arrived = arrivals(msgs);
	const { slots, slotOf } = lanesOf(rec, msgs, W);
	const after = (seq) => upTo(msgs, seq, (m) => m.seq);

	const killedAt = new Map();
	arrived.forEach((a, i) => { if (DEADLY.has(a.struck) && !killedAt.has(msgs[i].process)) killedAt.set(msgs[i].process, i); });

	// What happens between messages, by how many messages came before.
	const between = new Map(), gone = new Map();
	const add = (pos, item) => {
		if (!between.has(pos)) between.set(pos, []);
		between.get(pos).push(item);
	};
	for (const s of slots) {
		for (const l of s.lives) {
			const killed = killedAt.get(l.process);
			if (l.end) {
				l.endPos = after(l.to || l.from);
				if (killed !== undefined) l.endPos = Math.max(l.endPos, killed + 1);
				l.killed = killed !== undefined || /kill|crash/i.test(l.end);
				if (l.known && killed === undefined) add(l.endPos, { k: "end", rank: 0, life: l });
				if (!gone.has(l.endPos - 1)) gone.set(l.endPos - 1, []);
				gone.get(l.endPos - 1).push(l.process);
			} else {
				l.killed = killed !== undefined;
				l.endPos = l.killed ? killed + 1 : Infinity;
			}
		}
		s.lives.forEach((l, n) => {
			l.again = n > 0 && !s.crowded;
			l.startPos = n > 0 && !s.crowded ? Math.max(after(l.from), s.lives[n - 1].endPos === Infinity ? 0 : s.lives[n - 1].endPos) : after(l.from);
			if (l.startPos > 0 || n > 0) add(l.startPos, { k: "start", rank: 2, life: l });
		});
	}
	for (const b of rec.broken) add(after(b.after), { k: "broken", rank: 1, broken: b });

	const { spans, spanOf } = follow(msgs, arrived, gone);

	const items = [], itemOf = new Array(msgs.length), alive = slots.map((s) => (s.crowded || s.lives[0].startPos === 0 ? 1 : 0));
	const push = (item, step) => {
		item.step = step; // the newest message at this row
		item.alive = alive.slice();
		items.push(item);
		return item;
	};
	for (let pos = 0; pos <= msgs.length; pos++) {
		for (const it of (between.get(pos) || []).sort((a, b) => a.rank - b.rank)) {
			push(it, pos - 1);
			if (it.k === "broken") continue;
			const s = slotOf.get(it.life.process);
			if (slots[s].crowded) continue;
			// 2: the lane ends in this row; 3: it begins here.
			it.alive[s] = it.k === "end" ? 2 : 3;
			alive[s] = it.k === "end" ? 0 : 1;
		}
		if (pos === msgs.length) break;
		const m = msgs[pos];
		itemOf[pos] = items.length;
		push({ k: "msg", i: pos }, pos);
		if (arrived[pos].struck) {
			const it = push({ k: "fault", i: pos, fault: arrived[pos].struck }, pos), s = slotOf.get(m.process);
			if (DEADLY.has(it.fault) && !slots[s].crowded) {
				it.alive[s] = 2;
				alive[s] = 0;
			}
		}
	}
	if (rec.trace.dropped > 0) push({ k: "gap", n: rec.trace.dropped }, msgs.length - 1);

	// Bars beside PostgreSQL's lane, side by side where transactions overlap.
	const until = [];
	let room = 20 * items.length + 1000; // hundreds of connections say nothing more
	for (const t of spans) {
		const from = itemOf[t.first], to = t.fate === "open" ? items.length - 1 : itemOf[t.last];
		let slot = until.findIndex((u) => u < from);
		if (slot < 0) slot = until.push(0) - 1;
		until[slot] = to;
		t.slot = Math.min(slot, MOST_BARS - 1);
		if ((room -= to - from + 1) < 0) break;
		for (let k = from; k <= to; k++) (items[k].bars || (items[k].bars = [])).push({ t, top: k > from, bottom: k < to || t.fate === "open" });
	}

	const seen = [...msgs, ...waiting], uses = new Set(seen.map((m) => m.server));
	const columns = [], server = {}, all = both || !uses.size;
	const lane = (key, name) => { server[key] = columns.push({ name, server: true }) - 1; };
	if (all || uses.has("pg")) lane("pg", W.postgres);
	const base = columns.length;
	slots.forEach((s, i) => columns.push({ name: s.name, slot: i }));
	if (all || uses.has("amqp")) lane("amqp", W.rabbit);
	for (const m of seen) if (m.protocol === "http" && server[m.server] === undefined) lane(m.server, line(m.service, 24));

	const seqAt = (i) => (i + 1 < msgs.length ? msgs[i + 1].seq - 1 : Infinity);
	return {
		msgs, arrived, slots, slotOf, spans, spanOf, items, itemOf, columns, server, base, after,
		column: (p) => base + (slotOf.get(p) ?? 0),
		// The last scene before the next message: detail that was left out of the
		// trace belongs to the step before it.
		scene: (i) => upTo(rec.scenes, seqAt(i), (s) => s.after) - 1,
		brokenAt: (i) => rec.broken.filter((b) => Math.max(0, after(b.after) - 1) === i || (i === -1 && after(b.after) === 0)),
		isEffect: (i) => ACTING.has(msgs[i].effect),
		isFault: (i) => !!arrived[i].struck || rec.broken.some((b) => after(b.after) - 1 === i),
	};
}

function processName(model, p, W) {
	const s = model.slots[model.slotOf.get(p)];
	const name = fill(W.process, { n: p });
	if (!s || s.crowded || !s.lives[0].work) return name;
	return s.lives.length > 1 ? s.name + " (" + name + ")" : s.name;
}

function faultWords(fault, W) {
	return (Object.hasOwn(W.fault, fault) && W.fault[fault]) || fill(W.faultOther, { fault: line(fault, 24) });
}

const serverName = (model, m) => (model.columns[model.server[m.server]] || { name: line(m.protocol, 24) }).name;

// tell says a message in one sentence.
function tell(model, m, how, W) {
	const process = processName(model, m.process, W), server = serverName(model, m);
	const back = m.dir === "<";
	const v = { message: stepName(m), from: back ? server : process, to: back ? process : server };
	const text = how === "waits" ? W.waitsSay : how === "lost" ? W.lost : back && (/^(done|confirm)$/.test(m.effect) || m.type === "response" || / done$|-ok$/.test(m.name)) ? W.answers : W.sends;
	return fill(text, v);
}

// sayStep is what a screen reader hears of a step.
function sayStep(rec, model, i, W) {
	const n = model.msgs.length;
	if (i < 0) return n ? fill(W.say, { step: W.stepZero, what: W.nothingSent }) : W.stepsNone;
	const m = model.msgs[i], a = model.arrived[i];
	const out = [fill(W.say, { step: fill(W.stepOf, { i: i + 1, n }), what: tell(model, m, a.stopped ? "lost" : "", W) })];
	if (a.struck) out.push(fill(W.faultSay, { what: faultWords(a.struck, W) }));
	const t = transactions(model, i);
	const count = (parts) => parts.reduce((sum, p) => sum + p.writes.length, 0);
	for (const [key, text] of [["kept", W.keptSay], ["dropped", W.droppedSay], ["open", W.openSay]]) {
		const c = count(t[key]);
		if (c) out.push(fill(text, { n: c }));
	}
	for (const d of changes(rec, model, i)) {
		for (const [key, text] of [["new", W.thingNew], ["changed", W.thingChanged], ["gone", W.thingGone]]) {
			if (d[key]) out.push(fill(text, { n: d[key], name: line(d.name, 60) }));
		}
	}
	for (const b of model.brokenAt(i)) out.push(fill(W.brokeHere, { name: line(b.invariant, 80) }) + ".");
	return out.join(" ");
}

// changes compares what is shown at step i with what was shown before it.
const memory = new WeakMap();
function changes(rec, model, i) {
	const at = model.scene(i), before = i >= 0 ? model.scene(i - 1) : at;
	if (at < 0) return [];
	const now = rec.scenes[at], prev = before >= 0 ? rec.scenes[before] : null;
	const kept = memory.get(now);
	if (kept && kept.prev === prev) return kept.out;
	const key = (t) => t.kind + " " + t.name;
	const old = new Map((prev || { things: [] }).things.map((t) => [key(t), t]));
	const out = now.things.map((t) => diff(prev ? old.get(key(t)) || { columns: t.columns, rows: [], more: 0 } : t, t));
	memory.set(now, { prev, out });
	return out;
}

// keyOf finds the column that names a row in both; -1 when there is none.
function keyOf(a, b) {
	if (a.columns.join("\0") !== b.columns.join("\0")) return -1;
	const ids = b.columns.map((c, i) => (/(^|[ _])id$/i.test(c) ? i : -1)).filter((i) => i >= 0);
	const exact = b.columns.findIndex((c) => /^id$/i.test(c));
	const order = [exact, ...(b.kind === "queue" ? [...ids] : [0, ...ids])];
	const unique = (rows, c) => rows.every((r) => r[c]) && new Set(rows.map((r) => r[c])).size === rows.length;
	const at = order.find((c) => c >= 0 && c < b.columns.length && unique(a.rows, c) && unique(b.rows, c));
	return at === undefined ? -1 : at;
}

// diff marks the rows of b that are new or changed since a, and puts those
// that are gone where they were.
function diff(a, b) {
	const out = { kind: b.kind, name: b.name, columns: b.columns, more: b.more, note: b.note, rows: [], new: 0, changed: 0, gone: 0 };
	if (a === b) {
		out.rows = b.rows.map((cells) => ({ cells, mark: "" }));
		return out;
	}
	const col = keyOf(a, b);
	const keys = (rows) => {
		const seen = new Map();
		return rows.map((r) => {
			const k = col >= 0 ? r[col] : JSON.stringify(r), n = seen.get(k) || 0;
			seen.set(k, n + 1);
			return n ? k + "\0" + n : k;
		});
	};
	const ka = keys(a.rows), kb = keys(b.rows);
	const ina = new Map(ka.map((k, i) => [k, i])), inb = new Map(kb.map((k, i) => [k, i]));
	// Of a list that was cut, the end is not known: what comes into sight there
	// is not new.
	let common = -1, commonOld = -1;
	kb.forEach((k, i) => { if (ina.has(k)) { common = i; commonOld = Math.max(commonOld, ina.get(k)); } });
	const gone = new Map(); // by the key before them
	let before = "";
	ka.forEach((k, i) => {
		if (inb.has(k)) {
			before = k;
		} else if (!(b.more > 0 && i > commonOld && commonOld >= 0)) {
			if (!gone.has(before)) gone.set(before, []);
			gone.get(before).push({ cells: a.rows[i], mark: "gone" });
			out.gone++;
		}
	});
	const lost = (k) => { for (const r of gone.get(k) || []) out.rows.push(r); };
	lost("");
	kb.forEach((k, i) => {
		const row = { cells: b.rows[i], mark: "" };
		if (!ina.has(k)) {
			if (!(a.more > 0 && i > common)) row.mark = "new";
		} else {
			const was = a.rows[ina.get(k)];
			if (was.length !== row.cells.length || was.some((v, c) => v !== row.cells[c])) {
				row.mark = "changed";
				row.was = was;
			}
		}
		if (row.mark) out[row.mark]++;
		out.rows.push(row);
		lost(k);
	});
	return out;
}

// ghostOf makes a recording of the other run. Its processes have the lanes of
// those with their numbers: both runs begin with the same work.
function ghostOf(rec) {
	const there = new Set(rec.ghost.trace.messages.map((m) => m.process));
	const lives = rec.lives.filter((l) => there.has(l.process)).map((l) => ({ ...l, from: 0, to: 0, end: "" }));
	return { trace: rec.ghost.trace, lives, broken: [], scenes: [] };
}

// compare finds, for each slot, the first message where two runs part. Only
// what a process sends is compared: when an answer arrives is not its doing.
function compare(mine, theirs, over = true) {
	const sends = (model, slot) => {
		const out = [];
		model.msgs.forEach((m, i) => { if (m.dir === ">" && model.slotOf.get(m.process) === slot) out.push(i); });
		return out;
	};
	const out = { alike: new Set(), parts: [] };
	mine.slots.forEach((_, slot) => {
		if (slot >= theirs.slots.length) return;
		const a = sends(mine, slot), b = sends(theirs, slot);
		let k = 0, why = "";
		for (; !why; k++) {
			if (k >= a.length || k >= b.length) {
				if (k < b.length) why = over ? "mineEnds" : "same";
				else why = k < a.length ? "theirsEnds" : "same";
				break;
			}
			const x = a[k], y = b[k];
			if (sameName(mine.msgs[x]) !== sameName(theirs.msgs[y])) { why = "differ"; break; }
			out.alike.add(x);
			if (mine.arrived[x].struck !== theirs.arrived[y].struck) why = "fault";
		}
		if (why === "same") return;
		const fault = why === "fault", at = fault ? a[k - 1] : k < a.length ? a[k] : mine.msgs.length;
		out.parts.push({ slot, why, at, mine: fault ? a[k - 1] : a[k], theirs: b[k], rest: b.slice(k) });
	});
	out.parts.sort((p, q) => p.at - q.at);
	return out;
}

function sayPart(part, mine, theirs, name, W) {
	if (!part) return fill(W.ghostSame, { name });
	const text = { differ: W.ghostSends, mineEnds: W.ghostMineEnds, theirsEnds: W.ghostTheirsEnds, fault: W.ghostFault }[part.why];
	const of = (model, i) => (model.msgs[i] ? stepName(model.msgs[i]) : "");
	return fill(text, { name, mine: of(mine, part.mine), theirs: of(theirs, part.theirs) });
}

const KINDS = ["none", "unreached", "pruned", "held", "hung", "broke"]; // from the least to the most telling
const SIGNS = { none: "·", unreached: "○", pruned: "≈", held: "✓", hung: "∞", broke: "✗" };

function kindOf(p) {
	if (p.outcome === "ok") return p.pruned ? "pruned" : "held";
	return p.outcome === "violated" ? "broke" : p.outcome === "hung" || p.outcome === "unreached" ? p.outcome : "none";
}

// matrixOf makes a table of points by faults, in the order in which a run
// comes to them. A cell that stands for several runs shows the worst.
function matrixOf(points, msgs) {
	const order = new Map();
	msgs.forEach((m, i) => { const at = pointOf(m); if (!order.has(at)) order.set(at, i); });
	const rows = new Map(), whole = new Map(), faults = new Set();
	const cell = (map, key) => {
		if (!map.has(key)) map.set(key, { kind: "none", runs: 0, details: [] });
		return map.get(key);
	};
	for (const p of points) {
		const at = /^p(\d+)\.(pg|amqp|http)(\d+)([<>])(\d+)$/.exec(p.at);
		let c;
		if (!at || !p.fault) {
			c = cell(whole, p.fault || p.at);
		} else {
			if (!rows.has(p.at)) rows.set(p.at, { at: p.at, message: p.message, key: [+at[1], order.get(p.at) ?? 1e9, ["pg", "http", "amqp"].indexOf(at[2]), +at[3], at[4] === ">" ? 0 : 1, +at[5]], cells: new Map() });
			faults.add(p.fault);
			c = cell(rows.get(p.at).cells, p.fault);
		}
		const kind = kindOf(p);
		c.runs++;
		if (KINDS.indexOf(kind) > KINDS.indexOf(c.kind)) c.kind = kind;
		if (kind !== "held" && (p.violation || p.detail) && c.details.length < 5) c.details.push({ violation: p.violation, detail: p.detail, then: p.then });
	}
	const rank = (f) => (FAULTS.indexOf(f) + 1 || FAULTS.length + 1);
	const compareKeys = (a, b) => {
		const i = a.key.findIndex((k, j) => k !== b.key[j]);
		return i < 0 ? 0 : a.key[i] - b.key[i];
	};
	return {
		faults: [...faults].sort((a, b) => rank(a) - rank(b)), order,
		rows: [...rows.values()].sort(compareKeys), whole: [...whole].map(([name, c]) => ({ name, cell: c })),
	};
}

function cannotFail(p) {
	return p.protocol !== "http" && (p.protocol !== "pg" || p.dir !== ">" || !/^(Query|Execute)$/.test(p.type) || p.effect === "rollback" || /^(ROLLBACK|ABORT)/i.test(p.name));
}

// crashed finds the process that Restart would start again.
function crashed(lives, state) {
	const newest = new Map();
	for (const l of lives) newest.set(l.slot, l);
	const ended = [...newest.values()].filter((l) => l.end);
	return ended.find((l) => /kill|crash/i.test(l.end)) || (state === "crashed" ? ended.at(-1) : undefined);
}

// cannot says why a command cannot be given now, as a key of words.cannot; ""
// when it can.
function cannot(act, s) {
	if (s.link !== "open") return s.link;
	if (act === "stop") return "";
	if (s.busy) return "busy";
	const p = s.chosen;
	switch (act) {
		case "crash":
			return p || s.alive ? "" : "dead";
		case "restart":
			return crashed(s.lives, s.state) ? "" : "alive";
		case "rewind":
			return s.selected < s.last ? "" : "rewind";
	}
	if (!p) return s.state === "ended" || s.state === "crashed" ? s.state : "running";
	if (act === "nack") return p.effect === "publish" && p.dir === ">" && p.tag > 0 ? "" : "nack";
	if (act === "fail") return cannotFail(p) ? "fail" : "";
	return "";
}

const logic = {
	line, block, fill, normalize, message, scene, pointOf, stepName, sameName, arrivals, build, transactions, processName,
	sayStep, tell, changes, diff, ghostOf, compare, sayPart, matrixOf, kindOf, cannot, crashed, upTo,
};
if (typeof document === "undefined") {
	if (typeof module === "object") module.exports = logic; // for the tests
	return;
}

// ---- The page -------------------------------------------------------------

const script = document.currentScript;
const place = script && script.parentElement;
if (!place) return;
const data = (name) => {
	const found = place.querySelector(":scope > script." + name);
	return found ? JSON.parse(found.textContent) : null;
};
let W, look;
try {
	look = data("player");
	W = look.words;
} catch {
	return; // without words there is the still picture
}

const LIVE_KEYS = { s: "step", e: "effect", c: "crash", x: "cut", b: "blackhole", n: "nack", t: "fail", r: "restart", z: "rewind" };
const HIDE = { "aria-hidden": "true" };
const HEAD = 40, ROW = 30, WAIT = 46, LINE = 21, LABEL = 14, OVER = 6;
const SVG = "http://www.w3.org/2000/svg";
const HAND = "M4.5 8.5V4.7a1 1 0 0 1 2 0V8M6.5 7.5V3.4a1 1 0 0 1 2 0v4.1M8.5 7.5V4a1 1 0 0 1 2 0v4M10.5 8V5.4a1 1 0 0 1 2 0V10c0 2.8-1.6 4.6-4.2 4.6-2 0-3-.9-4-2.6L2.8 9.5c-.6-1.1.8-2 1.7-1z";
const ICON = {
	first: "M4 3h1.8v10H4zM13 3v10L6.5 8z", previous: "M11.5 3v10L4.5 8z", next: "M4.5 3v10l7-5z", last: "M10.2 3H12v10h-1.8zM3 3v10l6.5-5z",
	play: "M4 2.5v11L13 8z", pause: "M4 3h3v10H4zM9 3h3v10H9z",
	effect: "M2 3v10l6-5zM10.5 5a3 3 0 1 1 0 6 3 3 0 0 1 0-6z", fault: "M9 1 3.5 9H7l-1 6 6-8.5H8.3z",
	step: "M3 3v10l6-5zM10.5 3h2v10h-2z", crash: "M3.4 2 8 6.6 12.6 2 14 3.4 9.4 8l4.6 4.6-1.4 1.4L8 9.4 3.4 14 2 12.6 6.6 8 2 3.4z",
	cut: "M1 7h4.5v2H1zM10.5 7H15v2h-4.5zM8.8 2 7.2 14l-1.5-.2L7.3 1.8z", blackhole: "M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2z",
	nack: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM4.5 7v2h7V7z", fail: "M7 2h2v8H7zM7 11.5h2v2H7z",
	restart: "M8 3a5 5 0 1 1-4.9 6h1.7A3.4 3.4 0 1 0 8 4.6V7L4 3.8 8 .5z", rewind: "M8 3v4.4L14 3v10L8 8.6V13L1 8z", stop: "M3.5 3.5h9v9h-9z",
	table: "M2 3h12v10H2zM3.3 6.5v2h4v-2zM8.7 6.5v2h4v-2zM3.3 9.8v1.9h4V9.8zM8.7 9.8v1.9h4V9.8z", queue: "M1.5 5h3v6h-3zM6 5h3v6H6zM10.5 5h3v6h-3z",
};

// h and s make an element of HTML and of SVG: "tag.class", attributes, children.
function make(space, name, kids) {
	const [tag, ...classes] = name.split("."), el = document.createElementNS(space, tag);
	if (tag === "button") el.type = "button";
	if (classes.length) el.setAttribute("class", classes.join(" "));
	const attrs = kids[0] && kids[0].constructor === Object ? kids.shift() : {};
	for (const k in attrs) {
		const v = attrs[k];
		if (v === undefined || v === null || v === false) continue;
		if (k.startsWith("on")) el.addEventListener(k.slice(2), v);
		else el.setAttribute(k, v === true ? "" : v);
	}
	for (const kid of kids) if (kid && kid !== true) el.append(kid);
	return el;
}
const h = (name, ...kids) => make("http://www.w3.org/1999/xhtml", name, kids);
const s = (name, ...kids) => make(SVG, name, kids);
// What scrolls must take the focus, or the keyboard cannot scroll it.
const region = (name, label, attrs, ...kids) => h("div." + name, { tabindex: 0, role: "group", "aria-label": label, ...attrs }, ...kids);
const vline = (cls, x, y1, y2) => s("line." + cls, { x1: x, x2: x, y1, y2 });
const hline = (cls, y, x1, x2) => s("line." + cls, { x1, x2, y1: y, y2: y });
const icon = (name) => s("svg", { viewBox: "0 0 16 16", class: "icon", ...HIDE }, s("path", { d: ICON[name], "fill-rule": "evenodd" }));

// setText leaves a node alone that says the same already: screen readers would
// read it again.
const setText = (el, text) => { if (el.textContent !== text) el.textContent = text; };

const ruler = document.createElement("canvas").getContext("2d");
const widths = new Map();
function widthOf(text, font) {
	const key = font + "\0" + text;
	let w = widths.get(key);
	if (w === undefined) {
		if (widths.size > 20000) widths.clear();
		ruler.font = font;
		widths.set(key, (w = ruler.measureText(text).width));
	}
	return w;
}

// fit cuts text to a width in pixels, but not the number at its end.
function fit(text, room, font) {
	if (widthOf(text, font) <= room) return text;
	text = text.replace(/^basic\./, ""); // what all have says the least
	if (widthOf(text, font) <= room) return text;
	const tag = (/ [#≤]\d+$/.exec(text) || [""])[0], all = [...text.slice(0, text.length - tag.length)];
	let lo = 0, hi = all.length;
	ruler.font = font;
	const cut = (n) => all.slice(0, n).join("").trimEnd() + "…" + tag;
	while (lo < hi) {
		const mid = (lo + hi + 1) >> 1;
		if (ruler.measureText(cut(mid)).width <= room) lo = mid; else hi = mid - 1;
	}
	return cut(lo);
}

// bodies are those of the pages that may tell the theme: this one, and the one
// around it unless it is of another origin.
function bodies() {
	const out = [document.body];
	try {
		if (window.parent !== window) out.push(window.parent.document.body);
	} catch {
		// it does not tell
	}
	return out.filter(Boolean);
}

function isDark(system) {
	for (const body of bodies()) {
		const jupyter = body.dataset.jpThemeLight;
		if (jupyter) return jupyter === "false";
		const code = /\bvscode-(light|dark|high-contrast-light|high-contrast)\b/.exec(body.className);
		if (code) return !code[1].endsWith("light");
	}
	return system.matches;
}

function watchTheme(root) {
	const system = matchMedia("(prefers-color-scheme: dark)");
	const set = () => root.setAttribute("data-jp-theme-light", !isDark(system));
	set();
	const seen = new MutationObserver(set);
	for (const body of bodies()) seen.observe(body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
	system.addEventListener("change", set);
}

class View {
	constructor(shadow, rec, live) {
		this.live = live; // the session's address; "" when recorded
		this.link = live ? "connecting" : "closed"; // or open, offline
		this.state = "";
		this.pending = [];
		this.chosenID = "";
		this.sel = -1;
		this.following = !!live; // the newest message is selected
		this.speed = 2;
		this.playing = 0;
		this.rows = new Map();
		this.top = 0; // how far the messages are scrolled
		this.open = new Set(); // what was asked to be shown whole
		this.tab = "things";
		this.ghostOn = false;
		this.make(shadow);
		this.load(rec);
		new ResizeObserver(() => this.resized()).observe(this.scroller);
	}

	get isLive() { return !!this.live && this.link !== "closed"; }
	get last() { return this.model.msgs.length - 1; }
	get chosen() { return this.pending.find((p) => p.id === this.chosenID) || this.pending[0] || null; }

	// -- making

	button(name, text, why, act, cls) {
		const bare = cls === "bare";
		return h("button", { class: "b " + cls, title: why, "aria-label": bare && text, onclick: act }, icon(name), bare || h("span.t", text));
	}

	make(shadow) {
		const live = W.live;
		this.speeds = h("select", { "aria-label": W.speed, title: W.speed, onchange: () => { this.speed = +this.speeds.value; } });
		for (const n of [1, 2, 3, 5, 10]) this.speeds.append(h("option", { value: n, selected: n === this.speed, "aria-label": fill(W.perSecond, { n }) }, fill(W.perSecondShort, { n })));
		const go = (name, to) => this.button(name, W[name], W[name], () => this.select(to()), "bare");
		const find = (name, text, why) => this.button(name, text, why, () => this.jump(name), "wordy");
		const act = (name, cls) => {
			const b = this.button(name, live[name], "", () => this.act(name), "act " + (cls || ""));
			b.act = name;
			return b;
		};

		this.title = h("p.title");
		this.stateChip = h("span.chip.state", { hidden: true });
		this.brokenChips = h("span.chips");
		this.ghostButton = h("button", { class: "b small", "aria-pressed": "false", hidden: true, onclick: () => this.toggleGhost() });
		this.helpButton = h("button", { class: "b small", "aria-expanded": "false", onclick: () => this.toggleHelp() }, W.help);
		this.stopButton = act("stop", "small");
		this.playButton = this.button("play", W.play, W.playWhy, () => this.play(!this.playing), "play");
		this.acts = [act("step", "main"), act("effect"), act("crash", "bad"), act("cut", "bad"), act("blackhole", "bad"), act("nack", "bad"), act("fail", "bad"), act("restart"), act("rewind")];
		const a = this.acts;
		this.liveBar = h("div.bar.acts", { role: "group", "aria-label": live.bar },
			h("span.set", a[0], a[1]), h("span.set", ...a.slice(7)), h("span.set", ...a.slice(2, 7)));

		this.slider = h("input", { type: "range", min: 0, step: 1, "aria-label": W.slider, oninput: () => this.select(+this.slider.value - 1) });
		this.marks = s("svg.marks", HIDE);
		this.nav = [go("first", () => -1), go("previous", () => this.sel - 1), go("next", () => this.sel + 1), go("last", () => this.last)];
		this.counter = h("span.counter", HIDE);
		this.navBar = h("div.bar.nav", h("span.set.tight", this.nav[0], this.nav[1]),
			h("span.track", this.marks, this.slider), this.counter, h("span.set.tight", this.nav[2], this.nav[3]),
			(this.recordedOnly = h("span.set", find("effect", W.effect, W.effectWhy), find("fault", W.nextFault, W.nextFaultWhy))));

		this.noteText = h("span");
		this.note = h("div.note", { hidden: true }, this.noteText, h("button", { class: "b small", "aria-label": W.close, title: W.close, onclick: () => this.tell("") }, "×"));
		this.heads = h("div.heads", HIDE);
		this.space = h("div.space", HIDE);
		this.scroller = region("diagram", W.diagram, { onscroll: () => { this.top = this.scroller.scrollTop; this.later("window"); }, onclick: (e) => this.clicked(e) }, this.heads, this.space);
		this.about = region("about", W.about);
		this.tabs = h("div.tabs", { role: "tablist", "aria-label": W.tabs, hidden: true });
		for (const [key, text] of [["things", W.tabThings], ["matrix", W.tabMatrix]]) {
			this.tabs.append(h("button", { role: "tab", "data-tab": key, onclick: () => this.show(key), onkeydown: (e) => this.tabKey(e) }, text));
		}
		this.things = region("panel.things", W.things);
		this.matrix = region("panel.matrix", W.tabMatrix, { hidden: true });
		this.side = h("div.side", this.about, this.tabs, this.things, this.matrix);
		this.body = h("div.body", this.scroller, this.side);
		this.legend = h("div.legend");
		this.help = h("div.help", { hidden: true, role: "group", "aria-label": W.helpTitle });
		this.spoken = h("div.sr", { "aria-live": "polite" });
		this.noteSpoken = h("div.sr", { role: "status" });
		this.root = h("section", { class: "ccv ccp" + (this.live ? " live" : ""), lang: W.lang, onkeydown: (e) => this.key(e) },
			h("div.top", this.title, h("span.chips", this.stateChip, this.brokenChips), h("span.set.right", this.ghostButton, this.helpButton, this.stopButton)),
			this.liveBar, this.navBar, this.note, this.help, this.body, this.legend, this.spoken, this.noteSpoken);
		const theme = h("div.theme", this.root);
		watchTheme(theme);
		// A constructed sheet is allowed by a content security policy without
		// inline styles.
		try {
			const sheet = new CSSStyleSheet();
			sheet.replaceSync(look.css);
			shadow.adoptedStyleSheets = [sheet];
		} catch {
			shadow.append(h("style", look.css));
		}
		shadow.append(theme);
	}

	// load takes a whole recording.
	load(rec) {
		this.rec = rec;
		const title = line(rec.title, 160) || W.noTitle;
		setText(this.title, title);
		this.root.setAttribute("aria-label", fill(W.view, { title }));
		this.matrixMade = null;
		this.forget();
		this.ghostOn = this.ghostOn && !!rec.ghost;
		if (rec.ghost) {
			this.ghostName = line(rec.ghost.name, 60) || W.ghostName;
			this.ghostModel = build(ghostOf(rec), W, false);
			setText(this.ghostButton, fill(W.ghost, { name: this.ghostName }));
		}
		this.rebuild();
		const points = rec.points.length > 0;
		this.tabs.hidden = !points;
		if (!points) this.tab = "things";
		this.ghostButton.hidden = !rec.ghost;
		this.show(this.tab);
		if (!this.live) this.body.style.setProperty("--rows", Math.min(14, Math.max(10, this.items.length + 2)));
		this.brokenChips.textContent = "";
		for (const b of rec.broken.slice(0, 3)) {
			const name = line(b.invariant, 40);
			this.brokenChips.append(h("button", { class: "chip broke", title: fill(W.goToBroken, { name }), onclick: () => this.select(this.model.after(b.after) - 1) }, "✗ " + fill(W.broke, { name })));
		}
		this.spokenOf = null;
		if (!this.live && !this.begun) this.sel = this.model.arrived.findIndex((a) => a.struck); // it is about that
		this.begun = true;
		this.select(this.following ? this.last : Math.min(this.sel, this.last), true);
	}

	// rebuild lays the recording out again, after it has grown.
	rebuild() {
		this.model = build(this.rec, W, !!this.live, this.pending);
		if (this.ghostOn) this.compareGhost();
		else this.items = this.model.items;
		this.paintMarks();
		this.paintLegend();
		if (this.room) this.measure();
		else this.resized();
	}

	compareGhost() {
		const { model, ghostModel } = this;
		this.ghost = compare(model, ghostModel, !this.isLive);
		const part = this.ghost.parts[0];
		const at = part ? (part.at < model.msgs.length ? model.itemOf[part.at] : model.items.length) : model.items.length;
		const neighbour = model.items[Math.min(at, model.items.length - 1)];
		const row = (it) => ({ step: part ? part.at - 1 : model.msgs.length - 1, alive: neighbour ? neighbour.alive.map((v) => (v === 1 ? 1 : 0)) : [], ...it });
		const more = [row({ k: "parted", text: sayPart(part, model, ghostModel, this.ghostName, W) })];
		if (part) {
			for (const i of part.rest.slice(0, 6)) more.push(row({ k: "ghost", m: ghostModel.msgs[i], slot: part.slot }));
			if (part.rest.length > 6) more.push(row({ k: "gap", ghost: part.rest.length - 6 }));
		}
		this.ghostAt = at + (part && part.why === "fault" ? 1 : 0);
		this.ghostRows = more.length;
		this.items = [...model.items.slice(0, this.ghostAt), ...more, ...model.items.slice(this.ghostAt)];
	}

	rowOf(i) {
		if (i < 0) return -1;
		const k = this.model.itemOf[i];
		return this.ghostOn && k >= this.ghostAt ? k + this.ghostRows : k;
	}

	// -- drawing the messages

	// later gathers what has to be drawn into one frame.
	later(what) {
		(this.todo || (this.todo = new Set())).add(what);
		if (this.frame) return;
		this.frame = requestAnimationFrame(() => {
			this.frame = 0;
			const todo = this.todo;
			this.todo = new Set();
			if (todo.has("live")) this.paintLive();
			if (todo.has("step")) this.paintStep();
			if (todo.has("window") || todo.has("step")) this.paintWindow();
		});
	}

	// resized looks at the room there is. Nothing else asks for it: each question
	// makes the browser lay out the page.
	resized() {
		const { clientWidth: room, clientHeight: tallest } = this.scroller;
		if (!room || (this.room === room && this.tallest === tallest)) return;
		const first = !this.room;
		this.room = room;
		this.tallest = tallest;
		this.measure();
		if (!first && !this.following) return;
		this.reveal = true;
		this.later("step");
	}

	// measure places the lanes.
	measure() {
		const { room } = this;
		const n = this.model.columns.length;
		const gutter = room < 430 ? 4 : this.last < 999 ? 34 : 44;
		const width = Math.max(room, gutter + (n > 3 ? 56 + (n - 1) * (room < 600 ? 100 : 140) : 330));
		const inner = width - gutter;
		const margin = n <= 1 ? inner / 2 : n === 2 ? inner / 4 : Math.max(n > 4 ? 0.07 * inner : 0.11 * inner, 50);
		const x = this.model.columns.map((_, i) => (n <= 1 ? gutter + margin : gutter + margin + ((inner - 2 * margin) * i) / (n - 1)));
		const family = this.family || (this.family = getComputedStyle(this.root).fontFamily);
		this.layout = { width, gutter, x, font: "12px " + family, bold: "600 12px " + family };
		const key = x.join() + this.model.columns.map((c) => c.name).join("\0");
		if (this.headsKey !== key) {
			this.headsKey = key;
			this.paintHeads();
			this.forget();
		}
		this.later("window");
	}

	forget() {
		for (const r of this.rows.values()) r.remove();
		this.rows.clear();
	}

	paintHeads() {
		const { x, width } = this.layout;
		this.heads.textContent = "";
		this.heads.style.width = width + "px";
		this.model.columns.forEach((c, i) => {
			const el = h("span", { class: c.server ? "head server" : "head" }, h("b", c.name), c.server ? null : h("small"));
			el.style.left = x[i] + "px";
			el.style.maxWidth = (x.length > 1 ? Math.abs(x[1] - x[0]) + (c.server ? 8 : -3) : 200) + "px";
			this.heads.append(el);
		});
		this.paintWho();
	}

	// paintWho says which process is in a lane at the selected step.
	paintWho() {
		this.model.columns.forEach((c, i) => {
			const el = this.heads.children[i];
			if (c.server || !el) return;
			const slot = this.model.slots[c.slot];
			const lives = slot.lives.filter((l) => l.startPos <= this.sel + (this.following ? 1 : 0));
			const l = lives.at(-1) || slot.lives[0];
			const text = slot.crowded ? "" : fill(W.process, { n: l.process });
			setText(el.lastChild, l.work ? text : "");
			if (!l.work && !slot.crowded) setText(el.firstChild, text);
			el.classList.toggle("dead", l.endPos <= this.sel + 1);
		});
	}

	// makeRoom gives the rows the height that scrolling needs.
	makeRoom() {
		const tall = this.items.length * ROW + this.pending.length * WAIT + 10;
		if (this.tall !== tall) this.space.style.height = (this.tall = tall) + "px";
		if (this.wide !== this.layout.width) this.space.style.width = (this.wide = this.layout.width) + "px";
	}

	paintWindow() {
		if (!this.layout) return;
		this.makeRoom();
		const total = this.items.length, { top, tallest, stale } = this;
		const from = Math.max(0, Math.floor(top / ROW) - OVER), to = Math.min(total, Math.ceil((top + tallest) / ROW) + OVER);
		this.stale = false;
		for (const [k, el] of this.rows) {
			const same = !stale || this.items[k] && el.looks === this.looks(this.items[k]);
			if (same && k >= from && (k < to || k >= total)) continue;
			el.remove();
			this.rows.delete(k);
		}
		const fresh = document.createDocumentFragment();
		for (let k = from; k < to; k++) {
			if (this.rows.has(k)) continue;
			const el = this.drawRow(this.items[k], k);
			el.looks = this.looks(this.items[k]);
			this.rows.set(k, el);
			fresh.append(el);
		}
		if (to === total) {
			this.pending.forEach((p, j) => {
				if (this.rows.has(total + j)) return;
				const el = this.drawWait(p, total * ROW + j * WAIT);
				this.rows.set(total + j, el);
				fresh.append(el);
			});
		}
		if (fresh.childNodes.length) this.space.append(fresh);
		this.paintCursor();
	}

	// looks names all that may change of a row while a run grows: rows that look
	// the same stay.
	looks(it) {
		const t = it.k === "msg" && this.model.spanOf[it.i];
		return [it.k, it.i, it.alive, it.life && it.life.end, t && t.fate + (t.last === it.i), it.k === "msg" && this.model.arrived[it.i].stopped, ...(it.bars || []).map((b) => b.t.slot + b.t.fate + b.top + b.bottom)].join();
	}

	paintCursor() {
		const at = this.rowOf(this.sel), chosen = this.chosen;
		for (const [k, el] of this.rows) {
			const it = this.items[k];
			if (!it) {
				el.classList.toggle("chosen", this.isLive && !!chosen && el.pending === chosen.id);
				continue;
			}
			el.classList.toggle("now", k === at);
			el.classList.toggle("ahead", it.step > this.sel);
		}
	}

	svgRow(k, top, tall, cls) {
		const el = s("svg", { class: "row " + cls, width: this.layout.width, height: tall });
		el.style.top = top + "px";
		el.row = k;
		return el;
	}

	lanes(g, it, tall) {
		const { x } = this.layout, { columns } = this.model;
		columns.forEach((c, i) => {
			const v = it.alive[c.slot], mid = tall / 2, draw = (cls, y1, y2) => g.append(vline(cls, x[i], y1, y2));
			if (c.server) draw("lane", 0, tall);
			else if (v === 1) draw("process", 0, tall);
			else {
				if (v) draw("process", v === 2 ? 0 : mid, v === 2 ? mid : tall);
				draw("absent", v === 2 ? mid : 0, v === 3 ? mid : tall);
			}
		});
	}

	bars(g, it, tall, y) {
		const pg = this.model.server.pg;
		if (pg === undefined || !it.bars) return;
		const x = this.layout.x[pg];
		for (const { t, top, bottom } of it.bars) {
			const dx = x + t.slot * 8;
			const y1 = top ? 0 : y - 4, y2 = bottom ? tall : y;
			if (top || bottom) {
				g.append(s("rect", { class: "tx " + t.fate, x: dx - 3, y: y1, width: 6, height: y2 - y1 }));
				g.append(s("path", { class: "txe " + t.fate, d: "M" + (dx - 3) + " " + y1 + "V" + y2 + "M" + (dx + 3) + " " + y1 + "V" + y2 + (top ? "" : "M" + (dx - 3) + " " + y1 + "h6") }));
			}
			if (bottom) continue;
			if (t.fate === "kept") g.append(s("circle.keptdot", { cx: dx, cy: y, r: 4.5 }));
			else if (t.fate === "dropped") g.append(s("circle.undone", { cx: dx, cy: y, r: 6 }), s("path.undone", { d: "M" + (dx - 3) + " " + (y - 3) + "l6 6m0-6l-6 6" }));
		}
	}

	text(x, y, text, room, cls, bold, anchor) {
		return s("text", { x, y, class: cls, "text-anchor": anchor || "middle" }, fit(text, room, bold ? this.layout.bold : this.layout.font));
	}

	// band is a row across all lanes.
	band(el, it, text) {
		const { width, gutter } = this.layout;
		this.lanes(el, it, ROW);
		el.append(s("rect.band", { x: gutter, width: width - gutter - 4, y: 3, height: ROW - 6, rx: 4 }), s("title", text));
		return this.text((width + gutter) / 2, ROW / 2 + 4, text, width - gutter - 30, "label", true);
	}

	drawRow(it, k) {
		const el = this.svgRow(k, k * ROW, ROW, it.k);
		const { x, width, gutter } = this.layout, model = this.model, mid = ROW / 2;
		if (it.k === "broken") {
			const detail = line(it.broken.detail || it.broken.says, 160);
			el.append(this.band(el, it, "✗ " + fill(W.broke, { name: line(it.broken.invariant, 80) }) + (detail && ": " + detail)));
			return el;
		}
		if (it.k === "parted") {
			el.append(this.band(el, it, it.text));
			return el;
		}
		if (it.k === "fault") {
			const m = model.msgs[it.i], px = x[model.column(m.process)], dies = DEADLY.has(it.fault);
			const what = dies ? fill(W.killedName, { name: processName(model, m.process, W) }) : faultWords(it.fault, W);
			const text = fill(W.faultAt, { what, point: pointOf(m) });
			this.band(el, it, text);
			if (it.alive[model.slotOf.get(m.process)] === 2) el.append(vline("process", px, 0, mid));
			this.bars(el, it, ROW, mid);
			el.append(this.sign(px, mid, it.fault), this.beside(px, mid + 4, text, "label", true, what));
			return el;
		}
		this.lanes(el, it, ROW);
		this.bars(el, it, ROW, it.k === "msg" ? LINE : mid);
		if (it.k === "gap") {
			el.append(this.text((width + gutter) / 2, mid + 4, it.ghost ? fill(W.ghostMore, { n: it.ghost, name: this.ghostName }) : fill(W.gap, { n: it.n }), width - 20, "label"));
		} else if (it.k === "start") {
			const px = x[model.column(it.life.process)];
			const text = processName(model, it.life.process, W);
			const label = this.text(px, mid + 4, it.life.again ? fill(W.restart, { name: text }) : text, Math.min(260, width - 40), "label", true);
			const w = Math.min(260, widthOf(label.textContent, this.layout.bold)) + 22;
			const shift = Math.max(0, w / 2 + 2 - px) - Math.max(0, px + w / 2 + 2 - width);
			label.setAttribute("x", px + shift);
			el.append(s("rect.pill", { x: px + shift - w / 2, y: 4, width: w, height: 22, rx: 11 }), label);
		} else if (it.k === "end") {
			const px = x[model.column(it.life.process)];
			el.append(it.life.killed ? this.sign(px, mid, "kill") : hline("cap", mid, px - 7, px + 7));
			const text = fill(W.ended, { name: processName(model, it.life.process, W), end: line(it.life.end, 80) });
			const label = this.beside(px, mid + 4, text, "label", it.life.killed);
			el.append(label, s("title", text));
			if (it.life.killed) el.classList.add("killed");
		} else if (it.k === "ghost") {
			this.arrow(el, it.m, x[model.base + it.slot], model.base + it.slot, { cls: "ghostly", label: stepName(it.m), title: fill(W.ghostRow, { name: this.ghostName, message: stepName(it.m) }) });
		} else {
			const m = model.msgs[it.i], a = model.arrived[it.i], t = model.spanOf[it.i];
			const write = t && m.effect === "write" && m.dir === ">";
			const cls = (m.dir === "<" ? "back" : "") + (write ? " open" : "") + (write && t.fate === "dropped" ? " dropped" : "") + (m.effect === "commit" && !a.stopped ? " commit" : "") + (a.stopped ? " stopped" : "");
			const col = model.column(m.process);
			if (this.ghostOn && this.ghost.alike.has(it.i)) this.arrow(el, m, x[col], col, { cls: "shade", bare: true, stopped: false });
			let tip = 0;
			if (m.dir === ">" && m.protocol === "pg" && t && !a.stopped) tip = t.slot * 8 + 3 + (t.last === it.i && t.fate !== "open" ? 2 : 0);
			this.arrow(el, m, x[col], col, { cls, stopped: a.stopped, tip, bold: m.effect === "commit", label: stepName(m) });
			if (gutter > 10) el.append(this.text(gutter - 8, LINE, String(it.i + 1), 99, "no", false, "end"));
		}
		return el;
	}

	// beside writes next to a sign on a lane, on the side with more room.
	beside(px, y, text, cls, bold, short) {
		const { width, gutter } = this.layout, right = width - px > px - gutter + 40 || px < width * 0.55;
		const room = (right ? width - px : px - gutter) - 24;
		if (short && widthOf(text, this.layout.bold) > room) text = short;
		return this.text(right ? px + 15 : px - 15, y, text, room, cls, bold, right ? "start" : "end");
	}

	sign(x, y, fault) {
		const g = s("g.sign", s("circle", { cx: x, cy: y, r: 9 }));
		if (DEADLY.has(fault)) g.append(s("path.stroke", { d: "M" + (x - 4) + " " + (y - 4) + "l8 8m0-8l-8 8" }));
		else g.append(s("path", { d: ICON.fault, transform: "translate(" + (x - 6) + " " + (y - 6.4) + ") scale(.78)" }));
		return g;
	}

	arrow(el, m, px, col, o) {
		const { x } = this.layout, model = this.model;
		const server = model.server[m.server] ?? col + 1;
		const sx = x[Math.min(server, x.length - 1)] + (o.tip || 0), back = m.dir === "<";
		const dir = server < col ? -1 : 1, near = x[Math.max(0, Math.min(x.length - 1, col + dir))];
		const from = back ? sx : px;
		let to = back ? px : sx, label = (px + near) / 2, room = Math.abs(near - px) - 26;
		if (!o.bare && !o.stopped && widthOf(o.label, o.bold ? this.layout.bold : this.layout.font) > room) {
			label = (px + x[server]) / 2;
			room = Math.abs(x[server] - px) - 26;
		}
		if (o.stopped) {
			const step = back ? x[server - dir] : near;
			to = from + (step - from) * 0.72;
			label = (from + step) / 2;
			room = Math.abs(step - from) - 26;
		}
		const g = s("g", { class: "m " + o.cls }), left = to < from ? -1 : 1;
		g.append(s("line", { x1: from, x2: o.stopped ? to : to - left * 2, y1: LINE, y2: LINE }));
		if (!o.bare) {
			if (o.stopped) g.append(s("path.x", { d: "M" + (to - 5) + " " + (LINE - 5) + "l10 10m0-10l-10 10" }));
			else g.append(s("path.tip", { d: "M" + (to - left * 9) + " " + (LINE - 4) + "L" + (to - left) + " " + LINE + "L" + (to - left * 9) + " " + (LINE + 4) + (back ? "" : "z") }));
			g.append(this.text(label, LABEL, o.label, room, "label", o.bold), s("title", o.title || o.label));
		}
		el.append(g);
	}

	// drawWait draws a message that is held: half an arrow, up to the wire.
	drawWait(p, top) {
		const el = this.svgRow(-1, top, WAIT, "wait"), model = this.model, { x, width, gutter } = this.layout;
		el.pending = p.id;
		const last = model.items.at(-1), alive = model.slots.map((_, i) => (last ? last.alive[i] % 2 : 1));
		const open = (last && last.bars || []).filter((b) => b.bottom).map((b) => ({ ...b, top: true }));
		this.lanes(el, { alive }, WAIT);
		this.bars(el, { bars: open }, WAIT, WAIT / 2);
		const col = model.column(p.process), server = model.server[p.server] ?? col + 1, back = p.dir === "<", dir = server < col ? -1 : 1;
		const px = x[col], from = back ? x[server] : px, to = back ? px : x[server];
		const near = back ? x[server - dir] : x[col + dir] ?? to, mid = (from + near) / 2, y = 31, way = mid < from ? -1 : 1;
		el.append(hline("held", y, from, mid - way * 11), hline("rest", y, mid + way * 11, to));
		el.append(s("circle.hand", { cx: mid, cy: y, r: 11 }), s("path.palm", { d: HAND, transform: "translate(" + (mid - 7.9) + " " + (y - 8.5) + ")" }));
		const text = stepName(p);
		el.append(this.text(mid, 15, text, Math.abs(near - from) - 24, "label", true), s("title", text));
		if (gutter > 10) el.append(this.text(gutter + 2, y + 4, W.waits, 60, "word", true, "start"));
		return el;
	}

	clicked(e) {
		const row = e.target.closest && e.target.closest("svg.row");
		if (!row) return;
		if (row.pending !== undefined) {
			const p = this.pending.find((q) => q.id === row.pending);
			if (p) this.choose(p);
		} else {
			this.select(this.items[row.row].step);
		}
	}

	// -- selecting

	select(i, quiet) {
		const n = this.model.msgs.length;
		this.sel = Math.max(-1, Math.min(n - 1, i));
		if (!quiet && this.live) this.following = this.sel === n - 1;
		this.reveal = true;
		this.later("step");
	}

	jump(what) {
		const { model } = this, is = what === "effect" ? model.isEffect : model.isFault;
		for (let i = this.sel + 1; i < model.msgs.length; i++) if (is(i)) return this.select(i);
		this.tell(what === "effect" ? W.noEffect : W.noFault);
	}

	paintStep() {
		const { model, sel } = this, n = model.msgs.length;
		this.slider.max = n;
		this.slider.value = sel + 1;
		const said = sayStep(this.rec, model, sel, W);
		this.slider.setAttribute("aria-valuetext", said);
		setText(this.counter, n ? sel + 1 + " / " + n : "");
		if (said !== this.spokenOf) {
			if (this.spokenOf !== null) this.say(said);
			this.spokenOf = said;
		}
		if (this.reveal) {
			this.reveal = false;
			this.scrollTo();
		}
		this.paintWho();
		this.paintNow();
		if (this.tab === "things") this.paintThings();
		this.paintControls();
	}

	// say is for ears. While the view plays, not every step fits in.
	say(text) {
		const now = performance.now();
		clearTimeout(this.sayLater);
		if (this.playing && now - (this.saidAt || 0) < 1500) {
			this.sayLater = setTimeout(() => this.say(text), 1500);
			return;
		}
		this.saidAt = now;
		setText(this.spoken, text);
	}

	scrollTo() {
		if (!this.layout) return;
		const { x, width } = this.layout, { model, top, room } = this, tall = this.tallest - HEAD;
		this.makeRoom();
		const at = Math.max(0, this.rowOf(this.sel)) * ROW, m = model.msgs[this.sel];
		if (m && width > room + 4) this.scroller.scrollLeft = (x[model.column(m.process)] + (x[model.server[m.server]] ?? 0) - room) / 2;
		let to = top;
		if (this.following && this.isLive) to = this.tall;
		else if (at < top + ROW) to = at - 2 * ROW;
		else if (at > top + tall - 3 * ROW) to = at - tall + 4 * ROW;
		to = Math.max(0, Math.min(to, this.tall - tall));
		if (to !== top) this.scroller.scrollTop = this.top = to;
	}

	paintNow() {
		const { model, sel } = this, n = model.msgs.length, m = model.msgs[sel];
		if (this.nowSel === sel && this.nowModel === model) return;
		this.nowSel = sel;
		this.nowModel = model;
		this.about.textContent = "";
		if (!m) {
			this.about.append(h("p.what", n ? W.stepZero : W.stepsNone));
			return;
		}
		const a = model.arrived[sel], process = processName(model, m.process, W), server = serverName(model, m);
		const ms = fill(W.ms, { n: Math.round(m.time / 1e5) / 10 });
		this.about.append(
			h("p.meta", fill(W.stepOf, { i: sel + 1, n }), " · ", h("bdi", (m.dir === "<" ? server : process) + " → " + (m.dir === "<" ? process : server))),
			h("p.what", h("bdi", { title: m.name.length > 80 ? line(m.name, 2000) : null }, line(stepName(m), 80)), " ", h("span.meta", pointOf(m) + " · " + ms)));
		if (a.struck) {
			const what = DEADLY.has(a.struck) ? fill(W.killedName, { name: process }) : faultWords(a.struck, W);
			this.about.append(h("p.struck", "✗ ", fill(W.faultSay, { what })));
		}
		if (m.detail) this.about.append(h("pre", { dir: "ltr" }, block(m.detail)));
		for (const b of model.brokenAt(sel).slice(0, 4)) {
			this.about.append(h("div.brokebox", h("b", "✗ " + fill(W.brokeHere, { name: line(b.invariant, 80) })), b.says && h("p", line(b.says, 400)), b.detail && h("p", line(b.detail, 600))));
		}
	}

	// -- tables and queues

	paintThings() {
		const { model, rec, sel } = this;
		const tx = transactions(model, sel), at = model.scene(sel), before = sel >= 0 ? model.scene(sel - 1) : at;
		const key = [at, before, tx.open.length + tx.kept.length + tx.dropped.length ? sel : "", [...this.open].join()].join("|");
		if (this.thingsKey === key && this.thingsModel === model) return;
		this.thingsKey = key;
		this.thingsModel = model;
		const out = document.createDocumentFragment();
		if (model.spans.length) {
			const parts = ["open", "kept", "dropped"].flatMap((k) => tx[k].filter((p) => k === "open" || p.writes.length).map((p) => this.txBox(k, p)));
			out.append(...(parts.length ? parts.slice(0, 8) : [h("div.txbox.none.hint", W.openNot)]));
		}
		if (at < 0) {
			out.append(h("p.hint", rec.scenes.length ? fill(W.thingsAhead, { i: model.after(rec.scenes[0].after) }) : this.isLive ? W.noThingsYet : W.noThings));
		} else {
			const all = changes(rec, model, sel);
			if (all.length) out.append(h("p.hint", W.outside));
			for (const t of all) out.append(this.thing(t));
		}
		this.things.replaceChildren(out);
		// A change that is out of sight would be missed.
		const row = this.things.querySelector("tr.new, tr.changed, tr.gone"), box = this.things;
		if (!row || !box.clientHeight) return;
		const top = row.getBoundingClientRect().top - box.getBoundingClientRect().top;
		if (top < 0 || top > box.clientHeight - 70) box.scrollTop += row.closest(".thing").getBoundingClientRect().top - box.getBoundingClientRect().top - 8;
	}

	txBox(kind, p) {
		const why = { open: W.openWhy, dropped: W.droppedWhy }[kind];
		const box = h("div", { class: "txbox " + kind }, h("p", h("b", W[kind]), h("span.hint", " · " + fill(W.who, { name: processName(this.model, p.process, W), n: p.conn }))));
		for (const w of p.writes.slice(0, 12)) {
			const m = this.model.msgs[w];
			box.append(h("p.write", h("button.link.strong", { onclick: () => this.select(w) }, stepName(m)), m.detail && h("code", line(m.detail, 90))));
		}
		if (p.writes.length > 12) box.append(h("p.hint", fill(W.moreWrites, { n: p.writes.length - 12 })));
		if (why || !p.writes.length) box.append(h("p.hint", p.writes.length ? why : W.openNone));
		return box;
	}

	thing(t) {
		const key = "rows " + t.kind + " " + t.name;
		const room = this.open.has(key) ? 400 : 12;
		const box = h("div.thing");
		const name = line(t.name, 60);
		const caption = h("caption", icon(t.kind), h("b", h("bdi", name)), " " + W.kind[t.kind], t.note && h("span.hint", " · " + line(t.note, 120)));
		const head = h("tr");
		for (const c of t.columns) head.append(h("th", { scope: "col" }, line(c, 40)));
		head.append(h("td.mark"));
		const body = h("tbody");
		// What changed is shown whatever its place.
		let shown = t.rows, skipped = 0;
		if (shown.length > room) {
			let free = room - Math.min(room - 2, shown.reduce((n, r) => n + (r.mark ? 1 : 0), 0)), marked = room;
			shown = shown.filter((r) => (r.mark ? marked-- > 0 : free-- > 0));
			skipped = t.rows.length - shown.length;
		}
		for (const r of shown) {
			const tr = h("tr", { class: r.mark || null });
			t.columns.forEach((_, i) => {
				const v = r.cells[i] ?? "", was = r.was && r.was[i] !== v ? r.was[i] ?? "" : null;
				const td = h("td", { class: was !== null ? "diff" : null });
				const cell = this.cell(v);
				td.append(r.mark === "gone" ? h("s", cell) : cell);
				if (was) td.append(" ", h("s.was", { title: fill(W.was, { value: line(was, 200) }) }, line(was, 24)));
				tr.append(td);
			});
			tr.append(h("td.mark", r.mark ? { new: "+ ", changed: "~ ", gone: "− " }[r.mark] + W.mark[r.mark] : null));
			body.append(tr);
		}
		if (!t.rows.length) body.append(h("tr", h("td.hint", { colspan: t.columns.length + 1 }, W.empty)));
		box.append(h("table", caption, t.columns.length && h("thead", head), body));
		if (skipped > 0 && room === 12) box.append(h("button", { class: "link", onclick: () => { this.open.add(key); this.paintThings(); } }, fill(W.showRows, { n: Math.min(skipped, 388) })));
		const rest = t.more + (room === 12 ? Math.max(0, skipped - 388) : skipped);
		if (rest > 0) box.append(h("p.hint", fill(W.moreRows, { n: rest })));
		return box;
	}

	cell(v) {
		if (v === "") return h("span.sr", W.nothing);
		if (v.length <= 48) return h("bdi", line(v, 48));
		const b = h("button", { class: "cut", "aria-expanded": "false", title: W.whole }, line(v, 40));
		b.addEventListener("click", () => {
			const all = b.getAttribute("aria-expanded") !== "true";
			b.setAttribute("aria-expanded", all);
			setText(b, all ? block(v) : line(v, 40));
		});
		return h("bdi", b);
	}

	// -- the matrix

	show(tab) {
		this.tab = tab;
		for (const b of this.tabs.children) {
			const on = b.dataset.tab === tab;
			b.setAttribute("aria-selected", on);
			b.tabIndex = on ? 0 : -1;
		}
		this.things.hidden = tab !== "things";
		this.matrix.hidden = tab !== "matrix";
		if (tab === "matrix") this.paintMatrix();
		else this.later("step");
	}

	tabKey(e) {
		if (e.key !== "ArrowLeft" && e.key !== "ArrowRight") return;
		e.stopPropagation();
		e.preventDefault();
		this.show(this.tab === "things" ? "matrix" : "things");
		this.tabs.querySelector("[aria-selected=true]").focus();
	}

	paintMatrix() {
		if (this.matrixMade === this.rec) return;
		this.matrixMade = this.rec;
		const mx = matrixOf(this.rec.points, this.model.msgs);
		const used = new Set();
		this.outcome = h("div.outcome", { role: "status" }, h("p.hint", W.pick));
		const cell = (c, says, at) => {
			used.add(c.kind);
			const b = h("button", { class: "cell " + c.kind, title: says, "aria-label": says, tabindex: -1, onclick: () => this.pick(b, c, says, at) }, SIGNS[c.kind]);
			return b;
		};
		const wholes = h("p.wholes");
		for (const w of mx.whole.slice(0, 12)) {
			const run = line(w.name, 40) || W.withoutFault;
			wholes.append(h("span", cell(w.cell, fill(W.cellRun, { run, outcome: W.outcome[w.cell.kind] }), ""), " " + run));
		}
		const head = h("tr", h("th", { scope: "col" }, W.before));
		for (const f of mx.faults) head.append(h("th", { scope: "col" }, h("span", line(f, 14))));
		const body = h("tbody"), most = 60;
		let process = 0;
		const many = new Set(mx.rows.map((r) => r.key[0])).size > 1;
		const add = (rows) => {
			for (const r of rows) {
				if (many && r.key[0] !== process) {
					process = r.key[0];
					body.append(h("tr.group", h("th", { colspan: mx.faults.length + 1, scope: "colgroup" }, fill(W.process, { n: process }))));
				}
				const name = line(r.message, 60);
				const tr = h("tr", h("th", { scope: "row" }, h("bdi", name), " ", h("code", r.at)));
				for (const f of mx.faults) {
					const c = r.cells.get(f);
					if (!c) tr.append(h("td", h("span.cell.none", h("span", HIDE, SIGNS.none), h("span.sr", W.outcome.none))));
					else tr.append(h("td", cell(c, fill(W.cell, { fault: line(f, 24), message: name, point: r.at, outcome: W.outcome[c.kind] }), r.at)));
				}
				body.append(tr);
			}
		};
		add(mx.rows.slice(0, most));
		const more = mx.rows.length > most ? h("button", { class: "link", onclick: (e) => { add(mx.rows.slice(most)); e.target.remove(); } }, fill(W.morePoints, { n: mx.rows.length - most })) : null;
		const legend = h("p.kinds");
		for (const k of KINDS.slice().reverse()) if (used.has(k)) legend.append(h("span", h("span", { class: "cell " + k, "aria-hidden": "true" }, SIGNS[k]), " " + W.outcome[k]));
		const table = h("table.grid", h("caption.sr", W.matrix), h("thead", head), body);
		this.matrix.replaceChildren(this.outcome, mx.whole.length ? wholes : "", mx.rows.length ? table : h("p.hint", W.noSweep), more || "", legend);
		const first = this.matrix.querySelector("button.cell");
		if (first) first.tabIndex = 0; // one stop for Tab, arrows within
		this.matrix.onkeydown = (e) => this.matrixKey(e);
		this.matrixOrder = mx.order;
	}

	matrixKey(e) {
		const b = e.target.closest("button.cell");
		const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[e.key];
		if (!b || !step || e.ctrlKey || e.metaKey || e.altKey) return;
		e.preventDefault();
		e.stopPropagation();
		const td = b.closest("td");
		let to = null;
		if (td && step[0]) {
			for (let tr = td.parentElement; (tr = step[0] > 0 ? tr.nextElementSibling : tr.previousElementSibling) && !to;) to = tr.cells[td.cellIndex] && tr.cells[td.cellIndex].querySelector("button.cell");
		}
		if (!to) {
			const all = [...this.matrix.querySelectorAll("button.cell")];
			to = all[all.indexOf(b) + (step[0] + step[1])];
		}
		if (!to) return;
		b.tabIndex = -1;
		to.tabIndex = 0;
		to.focus();
	}

	pick(b, c, says, at) {
		for (const old of this.matrix.querySelectorAll(".cell.picked")) old.classList.remove("picked");
		b.classList.add("picked");
		const out = [h("p", h("b", SIGNS[c.kind] + " " + says), c.runs > 1 && h("span.hint", " · " + fill(W.worst, { n: c.runs })))];
		for (const d of c.details) {
			out.push(h("p", d.violation && h("b", line(d.violation, 80)), d.violation && d.detail ? ": " : null, line(d.detail, 400), d.then ? h("span.hint", " " + fill(W.then, { then: line(d.then, 80) })) : null));
		}
		if (at) {
			const i = this.matrixOrder.get(at);
			out.push(h("p.hint", i === undefined ? fill(W.notHere, { point: at }) : fill(W.here, { point: at })));
			if (i !== undefined) this.select(i);
		}
		this.outcome.replaceChildren(...out);
		b.scrollIntoView({ block: "nearest" }); // from behind the outcome
	}

	// -- marks, legend, help

	paintMarks() {
		const { model } = this, n = model.msgs.length;
		this.marks.textContent = "";
		if (!n) return;
		const all = model.msgs.map((_, i) => i), mark = (i, node) => this.marks.append(s("svg", { x: ((i + 1) / n) * 100 + "%", y: 5, overflow: "visible" }, node));
		const commits = all.filter((i) => model.msgs[i].effect === "commit" && !model.arrived[i].stopped);
		if (commits.length <= 300) for (const i of commits) mark(i, s("circle.keptdot", { r: 2.2 }));
		for (const i of all.filter((i) => model.arrived[i].struck).slice(0, 200)) mark(i, s("path.x", { d: "M-3-3 3 3M3-3-3 3" }));
		for (const b of this.rec.broken.slice(0, 20)) mark(model.after(b.after) - 1, s("path.flag", { d: "M-4-4h8v8h-8z" }));
	}

	paintLegend() {
		const { model } = this, has = (f) => model.spans.some(f);
		const there = {
			open: has((t) => t.last > t.first), kept: has((t) => t.fate === "kept"), dropped: has((t) => t.fate === "dropped"),
			stopped: model.arrived.some((a) => a.stopped), waits: this.isLive, ghost: this.ghostOn,
		};
		const kinds = Object.keys(there).filter((k) => there[k]);
		const key = kinds.join();
		if (this.legendKey === key) return;
		this.legendKey = key;
		const sample = {
			open: () => [s("rect.tx", { x: 0.6, y: 1.6, width: 6, height: 13 }), s("path.txe", { d: "M.6 1.6h6v13h-6z" }), hline("dash", 8, 11, 27)],
			kept: () => [hline("thick", 8, 10, 27), s("circle.keptdot", { cx: 6, cy: 8, r: 4.5 })],
			dropped: () => [s("circle.undone", { cx: 14, cy: 8, r: 6 }), s("path.undone", { d: "M11 5l6 6m0-6l-6 6" })],
			stopped: () => [hline("lost", 8, 1, 18), s("path.x", { d: "M16 4l8 8m0-8l-8 8" })],
			waits: () => [hline("held", 8, 0, 9), s("circle.hand", { cx: 17, cy: 8, r: 7.5 }), s("path.palm", { d: HAND, transform: "translate(11.6 2.3) scale(.68)" })],
			ghost: () => [hline("shade", 8, 1, 27)],
		};
		this.legend.replaceChildren(...kinds.map((k) => h("span", s("svg.key", { width: 28, height: 16, "aria-hidden": "true" }, ...sample[k]()), fill(W.legend[k], { name: this.ghostName }))));
	}

	toggleHelp() {
		const open = this.help.hidden;
		if (open) {
			const dl = h("dl");
			for (const [keys, text] of this.isLive ? W.keysLive : W.keys) dl.append(h("div", h("dt", ...keys.split(" ").map((k) => h("kbd", k))), h("dd", text)));
			this.help.replaceChildren(h("p.boxhead", h("b", W.helpTitle)), dl);
		}
		this.help.hidden = !open;
		this.helpButton.setAttribute("aria-expanded", open);
	}

	toggleGhost() {
		if (!this.rec.ghost) return;
		this.ghostOn = !this.ghostOn;
		this.ghostButton.setAttribute("aria-pressed", this.ghostOn);
		this.forget();
		this.rebuild();
		if (this.ghostOn) {
			const part = this.ghost.parts[0];
			const said = sayPart(part, this.model, this.ghostModel, this.ghostName, W);
			this.select(part ? Math.min(part.at, this.last) : this.sel);
			this.tell(said);
		} else {
			this.tell("");
			this.later("step");
		}
	}

	tell(text) {
		this.note.hidden = !text;
		setText(this.noteText, text);
		setText(this.noteSpoken, text);
	}

	// -- keys and controls

	key(e) {
		if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented) return;
		const tag = e.target.tagName;
		if (tag === "SELECT" || tag === "INPUT" && /^(Arrow|Home|End|Page)/.test(e.key) || tag === "BUTTON" && e.key === " ") return; // they have uses for it
		const live = this.isLive, back = () => this.select(this.sel - 1), on = () => this.select(this.sel + 1);
		const keys = {
			ArrowLeft: back, k: back, ArrowRight: on, j: on, Home: () => this.select(-1), End: () => this.select(this.last),
			e: () => this.jump("effect"), f: () => this.jump("fault"), " ": () => this.play(!this.playing),
			m: () => this.rec.points.length && this.show(this.tab === "matrix" ? "things" : "matrix"),
			g: () => this.toggleGhost(), w: () => this.chooseNext(), "?": () => this.toggleHelp(),
			Escape: () => (this.help.hidden ? this.tell("") : this.toggleHelp()),
		};
		const act = live && Object.hasOwn(LIVE_KEYS, e.key) && LIVE_KEYS[e.key];
		if (!act && !Object.hasOwn(keys, e.key)) return;
		e.preventDefault();
		e.stopPropagation();
		if (act) this.act(act);
		else keys[e.key]();
	}

	chooseNext() {
		const all = this.pending;
		if (all.length) this.choose(all[(all.indexOf(this.chosen) + 1) % all.length]);
	}

	choose(p) {
		this.chosenID = p.id;
		this.chosenProcess = p.process; // and its next message after this one
		this.paintCursor();
		this.paintControls();
		this.say(tell(this.model, p, "waits", W));
	}

	play(on) {
		clearTimeout(this.playing);
		this.playing = 0;
		if (on) {
			if (!this.isLive && this.sel >= this.last) this.select(-1);
			this.playing = setTimeout(() => this.beat(), this.isLive ? 0 : 1000 / this.speed);
		}
		this.paintControls();
	}

	beat() {
		if (!this.root.isConnected) return this.play(false);
		if (this.isLive) {
			const s = this.status();
			if (this.link !== "open" || this.state === "ended" || this.state === "crashed" && !s.chosen) return this.play(false);
			if (!cannot("step", s)) this.act("step");
		} else {
			this.select(this.sel + 1);
			if (this.sel >= this.last) return this.play(false);
		}
		this.playing = setTimeout(() => this.beat(), 1000 / this.speed);
	}

	status() {
		return {
			link: this.link, state: this.state, busy: this.busy, chosen: this.chosen, lives: this.rec.lives,
			alive: this.rec.lives.some((l) => !l.end), selected: this.sel, last: this.last,
		};
	}

	off(b, yes) {
		if (yes) b.setAttribute("aria-disabled", "true");
		else b.removeAttribute("aria-disabled");
	}

	able(b, why, says) {
		this.off(b, why);
		const text = why || says;
		if (b.title !== text) {
			b.title = text;
			b.setAttribute("aria-description", text);
		}
	}

	paintControls() {
		const { sel, model } = this, n = model.msgs.length, live = this.isLive;
		this.liveBar.hidden = !live;
		this.recordedOnly.hidden = live;
		this.stopButton.hidden = !live;
		this.nav.forEach((b, i) => this.off(b, i < 2 ? sel < 0 : sel >= n - 1));
		const on = !!this.playing, play = this.playButton;
		if (this.mode !== live) {
			this.mode = live;
			(live ? this.liveBar.firstChild : this.recordedOnly).append(play, this.speeds);
		}
		if (play.on !== on) {
			play.on = on;
			play.replaceChildren(icon(on ? "pause" : "play"), h("span.t", on ? W.pause : W.play));
		}
		const st = { ...this.status(), busy: false }, stuck = cannot("step", st); // busy is for a moment: nothing should flicker
		this.able(play, live && !on && /ended|crashed|offline|connecting/.test(stuck) ? W.cannot[stuck] : "", on ? W.pauseWhy : W.playWhy);
		if (!live) {
			this.stateChip.hidden = !this.live;
			if (this.live) this.chip("closed");
			return;
		}
		const p = this.chosen, message = p ? stepName(p) : "";
		const target = p ? p.process : (this.rec.lives.findLast((l) => !l.end) || { process: 0 }).process;
		const again = crashed(this.rec.lives, this.state);
		const says = (act) => fill(W.live[act + "Why"], {
			message, i: sel + 1, name: processName(model, act === "restart" && again ? again.process : target, W),
		});
		for (const b of [...this.acts, this.stopButton]) {
			const why = cannot(b.act, st);
			this.able(b, why && W.cannot[why], says(b.act));
		}
		// They apply to few messages: they are there when they can be used.
		this.acts[5].hidden = !!cannot("nack", st);
		this.acts[6].hidden = !!cannot("fail", st);
		this.stateChip.hidden = false;
		this.chip(this.link === "open" ? (Object.hasOwn(W.state, this.state) ? this.state : p ? "waiting" : "running") : this.link);
	}

	chip(key) {
		this.stateChip.className = "chip state " + key;
		setText(this.stateChip, W.state[key]);
	}

	// -- the live session

	connect() {
		const at = new URL(this.live, document.baseURI);
		if (!at.pathname.endsWith("/")) at.pathname += "/";
		this.base = at;
		this.tries = 0;
		this.listen();
		const wake = () => { if (document.visibilityState === "visible" && this.link === "offline") this.retry(0); };
		document.addEventListener("visibilitychange", wake);
		addEventListener("online", wake);
	}

	listen() {
		clearTimeout(this.retrying);
		if (this.source) this.source.close();
		const source = (this.source = new EventSource(new URL("events", this.base)));
		source.onmessage = (e) => {
			if (source !== this.source) return;
			let d;
			try {
				d = JSON.parse(e.data);
			} catch {
				return;
			}
			if (d && typeof d === "object") this.hear(d);
		};
		source.onerror = () => {
			if (source !== this.source || this.link === "closed") return;
			this.lost();
			// The browser tries again by itself unless the server gave an answer
			// that is no stream of events.
			if (source.readyState === EventSource.CLOSED) this.probe();
		};
	}

	lost() {
		this.link = "offline";
		this.play(false);
		this.tell(W.offline);
		this.later("live");
	}

	async probe() {
		const stop = new AbortController();
		try {
			const r = await fetch(new URL("events", this.base), { signal: stop.signal, cache: "no-store", headers: { Accept: "text/event-stream" } });
			stop.abort();
			if (r.status === 404 || r.status === 410) return this.close("");
			if (r.status === 401 || r.status === 403) this.tell(W.refused);
		} catch {
			// no answer at all
		}
		this.retry(Math.min(8000, 500 * 2 ** this.tries++));
	}

	retry(ms) {
		clearTimeout(this.retrying);
		if (this.link === "closed") return;
		this.retrying = setTimeout(() => this.listen(), ms);
	}

	close(text) {
		this.link = "closed";
		this.pending = [];
		this.following = false;
		this.play(false);
		if (this.source) this.source.close();
		clearTimeout(this.retrying);
		text = line(text, 300).replace(/[.\s]+$/, "");
		this.tell(text ? fill(W.overWhy, { text }) : W.over);
		this.later("live");
	}

	// hear takes one event of the session.
	hear(d) {
		if (this.link === "closed") return;
		if (this.link !== "open") {
			if (this.link === "offline") this.tell("");
			this.link = "open";
			this.tries = 0;
		}
		switch (d.type) {
			case "reset": {
				const rec = normalize(d.recording);
				if (!rec) {
					this.close("");
					this.tell(W.otherVersion);
					return;
				}
				this.busy = "";
				const old = this.model.msgs[this.sel];
				this.setPending(d);
				this.load(rec);
				if (!this.following) this.select(old ? this.model.after(old.seq) - 1 : -1);
				break;
			}
			case "passed": {
				const trace = this.rec.trace.messages, last = trace.length ? trace.at(-1).seq : 0;
				for (const m of objects(d.messages)) {
					const got = message(m);
					if (got.seq > last) trace.push(got);
				}
				if (d.scene) this.addScene(scene(d.scene));
				this.grown = true;
				break;
			}
			case "pending":
				this.busy = "";
				this.setPending(d);
				break;
			case "lives":
				this.rec.lives = objects(d.lives).map(life);
				this.grown = true;
				break;
			case "note":
				this.tell(line(d.text, 400));
				break;
			case "closed":
				this.close(str(d.text));
				return;
			default:
				return; // of a newer server
		}
		this.later("live");
	}

	addScene(sc) {
		const all = this.rec.scenes;
		while (all.length && all.at(-1).after >= sc.after) all.pop();
		all.push(sc);
	}

	setPending(d) {
		this.pending = objects(d.pending).slice(0, 50).map((p) => { const m = message(p); return { ...m, id: m.id || pointOf(m) }; });
		if (typeof d.state === "string") this.state = d.state;
		if (this.pending.some((p) => this.model.server[p.server] === undefined)) this.grown = true; // a lane more
		if (this.pending.some((p) => p.id === this.chosenID)) return;
		this.chosenID = (this.pending.find((p) => p.process === this.chosenProcess) || { id: "" }).id;
	}

	// paintLive draws what the session told.
	paintLive() {
		const n = this.model.msgs.length;
		if (this.grown) {
			this.grown = false;
			this.rebuild();
			if (this.following) this.sel = this.last;
		} else {
			this.paintLegend();
		}
		this.stale = true;
		this.reveal = this.following || this.model.msgs.length < n;
		this.paintStep();
		this.paintWindow();
		if (this.isLive && this.pending.length && this.state === "waiting") this.sayWaiting();
	}

	sayWaiting() {
		const p = this.chosen, text = tell(this.model, p, "waits", W);
		if (this.waitSaid === p.id) return;
		this.waitSaid = p.id;
		this.say((this.spokenOf || "") + " " + text);
	}

	async act(name) {
		if (!this.isLive) return;
		const why = cannot(name, this.status());
		if (why) {
			if (!this.playing && why !== "busy") this.tell(W.cannot[why]);
			return;
		}
		const p = this.chosen, body = { act: name };
		if (["step", "cut", "blackhole", "nack", "fail"].includes(name)) body.id = p.id;
		else if (name === "crash") body.process = p ? p.process : this.rec.lives.findLast((l) => !l.end).process;
		else if (name === "restart") body.process = crashed(this.rec.lives, this.state).process;
		else if (name === "rewind") body.seq = this.sel >= 0 ? this.model.msgs[this.sel].seq : 0;
		if (name === "rewind" || name === "restart") this.following = true;
		if (name !== "step" && name !== "effect") this.play(false);
		this.tell("");
		const turn = (this.busy = {});
		let text = "";
		try {
			const r = await fetch(new URL("do", this.base), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
			if (!r.ok) {
				text = r.status + " " + r.statusText;
				try {
					text = line((await r.json()).error, 400) || text;
				} catch {
					// not one of ours
				}
				if (r.status === 410) return this.close(text);
				text = fill(W.couldNot, { text });
			}
		} catch {
			text = W.offline;
		}
		if (text) {
			this.play(false);
			this.tell(text);
		}
		// The events that follow set it free sooner, as a rule.
		if (text && this.busy === turn) this.busy = "";
		else setTimeout(() => { if (this.busy === turn) this.busy = ""; }, 1500);
	}
}

// mount keeps the still picture unless all goes well.
function mount() {
	const live = place.getAttribute("data-live") || "";
	for (const old of place.querySelectorAll(":scope > .crashcourse-mounted, :scope > .crashcourse-note")) old.remove();
	const sorry = (text) => script.before(h("p", { class: "crashcourse-note", role: "note" }, text));
	let rec;
	try {
		rec = data("recording");
		if (rec || !live) rec = normalize(rec);
		else rec = normalize({ version: VERSION });
	} catch {
		return sorry(W.broken);
	}
	if (!rec) return sorry(W.otherVersion);
	const host = h("div", { class: "crashcourse-mounted" });
	script.before(host);
	try {
		const view = new View(host.attachShadow({ mode: "open" }), rec, live);
		if (live) {
			host.style.cssText = "display:block;height:100%";
			view.connect();
		}
	} catch (e) {
		host.remove();
		sorry(W.broken);
		throw e; // the console says why
	}
	for (const el of [...place.children]) if (el !== host && el.tagName !== "SCRIPT") el.remove();
	for (const el of [...place.childNodes]) if (el.nodeType === 3) el.remove();
}

mount();
})();
