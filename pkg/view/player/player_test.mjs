// The logic of the view, without a page: node --test pkg/view/player/
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";

const L = createRequire(import.meta.url)("./player.js");
const W = JSON.parse(readFileSync(new URL("./words.json", import.meta.url)));

// trace makes messages of lines such as "p1.pg1> write INSERT outbox !kill":
// process, connection, direction, effect, name, fault.
function trace(...lines) {
	const index = {};
	return {
		version: 1,
		messages: lines.map((l, i) => {
			const [, process, protocol, conn, dir, effect, name, fault] = /^p(\d+)\.(pg|amqp|http)(\d+)([<>]) (\S+) (.*?)(?: !(\w+))?$/.exec(l);
			const stream = process + protocol + conn + dir;
			index[stream] = (index[stream] || 0) + 1;
			const type = name.startsWith("basic.") ? name.split(" ")[0] : dir === ">" ? "Execute" : name.startsWith("ERROR") ? "ErrorResponse" : "CommandComplete";
			return { seq: i + 1, process: +process, protocol, conn: +conn, dir, index: index[stream], time: i * 1e6, step: true, type, name, effect: effect === "-" ? "" : effect, fault };
		}),
	};
}
const record = (t, more = {}) => L.normalize({ version: 1, title: "t", trace: t, ...more });
const build = (t, more) => L.build(record(t, more), W, false);
const fates = (m) => m.spans.map((s) => s.fate);
const thing = (rows, more = {}) => ({ kind: "table", name: "outbox", columns: ["id", "state"], rows, more: 0, note: "", ...more });

test("strings that act become strings that show", () => {
	assert.equal(L.line("a\u202eb\u0007c\u001b[31m"), "a\ufffdb\u2407c\u241b[31m");
	assert.equal(L.line("  two\n\tlines\u2028here "), "two lines here");
	assert.equal(L.line("👩\u200d🚀"), "👩\u200d🚀");
	assert.equal([...L.line("x".repeat(500), 10)].length, 10);
	assert.ok(L.line("e" + "\u0301".repeat(60)).length <= 5);
	assert.equal(L.line("\ud800"), "\ufffd");
	assert.equal(L.line(null), "");
	assert.equal(L.block("a\r\nb\tc\u0000"), "a\nb    c\u2400");
	assert.equal(L.fill("{a}{b}{n}", { a: "{b}", n: 1200 }), "{b}1,200");
	assert.equal(L.fill(["{n} row", "{n} rows"], { n: 1 }), "1 row");
});

test("anything may come as a recording", () => {
	for (const bad of [null, undefined, 1, "x", [], {}, { version: 2 }, { version: "1" }]) assert.equal(L.normalize(bad), null);
	const odd = L.normalize({ version: 1, trace: { messages: [null, 3, {}, { process: "x", name: { a: 1 }, seq: NaN }] }, scenes: [null, { things: [{ rows: ["x", null, [null, 1]] }] }], lives: "x", points: [{}], broken: [{}], ghost: 5 });
	const m = L.build(odd, W, true);
	assert.equal(m.msgs.length, 2);
	for (let i = -1; i < m.msgs.length; i++) assert.equal(typeof L.sayStep(odd, m, i, W), "string");
	L.matrixOf(odd.points, m.msgs);
	assert.equal(L.build(L.normalize({ version: 1 }), W, false).columns.length, 2);
});

test("what is not a step is left out, but for what a fault struck", () => {
	const t = trace("p1.pg1> - BEGIN", "p1.pg1> - Parse", "p1.pg1> - Bind !cut");
	t.messages[1].step = t.messages[2].step = false;
	assert.deepEqual(build(t).msgs.map((m) => m.name), ["BEGIN", "Bind"]);
	for (const m of t.messages) m.step = false;
	assert.equal(build(t).msgs.length, 3);
});

test("a write is not committed until its COMMIT", () => {
	const m = build(trace("p1.pg1> - BEGIN", "p1.pg1< - BEGIN done", "p1.pg1> write INSERT orders", "p1.pg1> commit COMMIT", "p1.pg1< done COMMIT done"));
	assert.deepEqual(fates(m), ["kept"]);
	assert.deepEqual(L.transactions(m, -1), { open: [], kept: [], dropped: [] });
	assert.deepEqual(L.transactions(m, 1).open[0].writes, []);
	assert.deepEqual(L.transactions(m, 2).open[0].writes, [2]);
	assert.deepEqual(L.transactions(m, 3).kept[0].writes, [2]);
	assert.deepEqual(L.transactions(m, 4), { open: [], kept: [], dropped: [] });
	assert.match(L.sayStep(record(trace("p1.pg1> - BEGIN")), m, 3, W), /^Step 4 of 5: process 1 sends COMMIT to PostgreSQL\. 1 write is committed now\.$/);
});

test("a statement outside a transaction is one by itself", () => {
	const m = build(trace("p1.pg1> write INSERT a", "p1.pg1> commit sync commits INSERT a", "p1.pg1< done INSERT a done", "p1.pg1> commit INSERT b"));
	assert.deepEqual(fates(m), ["kept", "kept"]);
	assert.deepEqual(L.transactions(m, 1).kept[0].writes, [0]);
	assert.deepEqual(L.transactions(m, 3).kept[0].writes, [3]);
});

test("rollback, error, kill, cut and a lost COMMIT drop what was written", () => {
	const open = ["p1.pg1> - BEGIN", "p1.pg1> write INSERT a"];
	const last = (...more) => fates(build(trace(...open, ...more)))[0];
	assert.equal(last("p1.pg1> rollback ROLLBACK"), "dropped");
	assert.equal(last("p1.pg1< - ERROR 40001"), "dropped");
	assert.equal(last("p1.amqp1> publish basic.publish x !kill"), "dropped");
	assert.equal(last("p1.pg1> commit COMMIT !kill"), "dropped");
	assert.equal(last("p1.pg1> commit COMMIT !cut"), "dropped");
	assert.equal(last("p1.pg1> commit COMMIT", "p1.pg1< done COMMIT rolled back"), "dropped");
	assert.equal(last("p1.amqp1> publish basic.publish x !cut"), "open", "another connection");
	assert.equal(last("p1.pg1> commit COMMIT !blackhole"), "open", "nobody has learned of it yet");
	assert.equal(last("p2.pg1> - BEGIN", "p1.pg1> - SELECT"), "open", "another process");
	const dead = build(trace(...open, "p2.pg1> - BEGIN"), { lives: [{ process: 1, work: "a", slot: 0, to: 2, end: "was killed" }, { process: 2, work: "a", slot: 0, from: 2 }] });
	assert.equal(fates(dead)[0], "dropped");
	assert.deepEqual(L.transactions(dead, 1).dropped[0].writes, [1]);
});

test("nothing of a killed process arrives, nor what follows a blackhole", () => {
	const stopped = (...l) => L.arrivals(record(trace(...l)).trace.messages).map((a) => +a.stopped).join("");
	assert.equal(stopped("p1.pg1> - a", "p1.pg1> - b !kill", "p1.amqp1> - c", "p2.pg1> - d"), "0110");
	assert.equal(stopped("p1.pg1> - a !blackhole", "p1.pg1< - b", "p1.pg1> - c !blackhole", "p1.pg2> - d"), "1010");
	assert.equal(stopped("p1.amqp1> publish basic.publish x !duplicate", "p1.amqp1> publish basic.publish x !nack"), "01");
});

test("a process that replaces a crashed one goes on in its lane", () => {
	const t = trace("p1.pg1> - a", "p1.pg1> - b !kill", "p2.pg1> - a");
	const lives = [{ process: 1, work: "relay", slot: 0, from: 0, to: 1, end: "was killed" }, { process: 2, work: "relay", slot: 0, from: 2, to: 3, end: "returned nil" }];
	for (const m of [build(t), build(t, { lives })]) {
		assert.equal(m.slots.length, 1);
		assert.deepEqual(m.items.map((i) => i.k).slice(0, 5), ["msg", "msg", "fault", "start", "msg"]);
		assert.deepEqual(m.items.map((i) => i.alive[0]).slice(0, 5), [1, 1, 2, 3, 1]);
	}
	const m = build(t, { lives });
	assert.equal(m.items.at(-1).k, "end");
	assert.equal(L.processName(m, 2, W), "relay (process 2)");
	assert.deepEqual(m.columns.map((c) => c.name), ["PostgreSQL", "relay"]);
	const twins = build(t, { lives: lives.map((l, i) => ({ ...l, slot: i })) });
	assert.deepEqual(twins.columns.slice(1).map((c) => c.name), ["relay (1)", "relay (2)"]);
});

test("a crash between two messages has a row of its own", () => {
	const m = build(trace("p1.pg1> - a", "p2.pg1> - a"), { lives: [{ process: 1, work: "w", slot: 0, to: 1, end: "was killed" }, { process: 2, work: "w", slot: 0, from: 1 }] });
	assert.deepEqual(m.items.map((i) => i.k), ["msg", "end", "start", "msg"]);
	assert.ok(m.items[1].life.killed);
});

test("a broken invariant stands where it broke", () => {
	const rec = record(trace("p1.pg1> - a", "p1.pg1> - b"), { broken: [{ invariant: "no-lost-event", after: 1 }] });
	const m = L.build(rec, W, false);
	assert.deepEqual(m.items.map((i) => i.k), ["msg", "broken", "msg"]);
	assert.equal(m.isFault(0), true);
	assert.match(L.sayStep(rec, m, 0, W), /no-lost-event broke here\.$/);
	assert.doesNotMatch(L.sayStep(rec, m, 1, W), /broke/);
});

test("the scene of a step is the last before the next step", () => {
	const t = trace("p1.pg1> - a", "p1.pg1> - b", "p1.pg1> - c");
	t.messages[1].seq = 5;
	t.messages[2].seq = 9;
	const m = build(t, { scenes: [0, 1, 7, 30].map((after) => ({ after, things: [] })) });
	assert.deepEqual([-1, 0, 1, 2].map(m.scene), [0, 1, 2, 3]);
	assert.equal(build(t).scene(2), -1);
});

test("rows are told apart by a column that names them", () => {
	const d = L.diff(thing([["1", "a"], ["2", "b"], ["3", "c"]]), thing([["1", "a"], ["3", "z"], ["4", "d"]]));
	assert.deepEqual(d.rows.map((r) => r.cells[0] + r.mark), ["1", "2gone", "3changed", "4new"]);
	assert.deepEqual([d.new, d.changed, d.gone], [1, 1, 1]);
	assert.deepEqual(d.rows[2].was, ["3", "c"]);
});

test("rows without a name are told apart by all they hold", () => {
	const q = (rows, more) => thing(rows, { kind: "queue", columns: ["routing key", "body"], ...more });
	const d = L.diff(q([["k", "a"], ["k", "a"], ["k", "b"]]), q([["k", "a"], ["k", "b"], ["k", "c"]]));
	assert.deepEqual(d.rows.map((r) => r.cells[1] + r.mark), ["a", "agone", "b", "cnew"]);
	assert.equal(L.diff(q([["k", "a"]]), q([["k", "b"]])).changed, 0);
});

test("what comes into sight at the end of a cut list is not new", () => {
	const d = L.diff(thing([["1", ""], ["2", ""]], { more: 5 }), thing([["2", ""], ["3", ""]], { more: 4 }));
	assert.deepEqual(d.rows.map((r) => r.cells[0] + r.mark), ["1gone", "2", "3"]);
});

test("changes are those of one step", () => {
	const rec = record(trace("p1.pg1> - a", "p1.pg1> - b", "p1.pg1> - c"), { scenes: [{ after: 0, things: [thing([])] }, { after: 2, things: [thing([["1", "x"]])] }] });
	const m = L.build(rec, W, false);
	assert.deepEqual([-1, 0, 1, 2].map((i) => L.changes(rec, m, i)[0].new), [0, 0, 1, 0]);
	assert.match(L.sayStep(rec, m, 1, W), /outbox: 1 row is new\./);
});

const shape = ["p1.pg1> - BEGIN", "p1.pg1> write UPDATE outbox", "p1.pg1> commit COMMIT", "p1.amqp1> publish basic.publish x"];
const part = (mine, theirs, over) => {
	const a = build(mine), b = build(theirs);
	const p = L.compare(a, b, over).parts[0];
	return [p ? p.why : "same", L.sayPart(p, a, b, "the reference", W)];
};

test("two runs part at the first message that differs", () => {
	const right = trace(shape[0], shape[3], shape[1], shape[2]);
	assert.deepEqual(part(trace(...shape), right), ["differ", "Here yours sends UPDATE outbox; the reference sends basic.publish x first."]);
	assert.equal(part(trace(...shape), trace(...shape))[0], "same");
	assert.equal(part(trace(...shape.slice(0, 2)), trace(...shape))[0], "mineEnds");
	assert.equal(part(trace(...shape.slice(0, 2)), trace(...shape), false)[0], "same", "a live run goes on");
	assert.equal(part(trace(...shape), trace(...shape.slice(0, 2)))[0], "theirsEnds");
	assert.equal(part(trace(shape[0], shape[1] + " !kill", "p2.pg1> - BEGIN"), trace(...shape))[0], "fault");
});

test("when answers come, and numbers in names, make no difference", () => {
	assert.equal(part(trace("p1.pg1> - a", "p1.pg1< - a done", "p1.amqp1> ack basic.ack ≤3"), trace("p1.pg1> - a", "p1.amqp1> ack basic.ack ≤17", "p1.pg1< - a done"))[0], "same");
});

test("the processes of the other run have the lanes of those with their numbers", () => {
	const lives = [{ process: 1, work: "place", slot: 0, to: 1, end: "returned nil" }, { process: 2, work: "relay", slot: 1 }];
	const t = trace("p1.pg1> - a", "p2.pg1> - b");
	const rec = record(t, { lives, ghost: { name: "g", trace: t } });
	assert.deepEqual(L.compare(L.build(rec, W, false), L.build(L.ghostOf(rec), W, false)).parts, []);
});

test("the matrix is in the order of the run, and shows the worst", () => {
	const msgs = build(trace("p1.amqp1> - b", "p1.pg1> - a")).msgs;
	const p = (at, fault, outcome, more) => ({ at, message: "m", fault, outcome, violation: "", detail: "", then: "", pruned: false, ...more });
	const m = L.matrixOf([p("p1.pg1>1", "nack", "ok"), p("p1.pg1>1", "kill", "ok", { pruned: true }), p("p1.pg1>1", "kill", "violated", { violation: "v" }), p("p1.amqp1>1", "kill", "hung"), p("", "", "ok"), p("p2.pg1>9", "zap", "unreached")], msgs);
	assert.deepEqual(m.rows.map((r) => r.at), ["p1.amqp1>1", "p1.pg1>1", "p2.pg1>9"]);
	assert.deepEqual(m.faults, ["kill", "nack", "zap"]);
	const c = m.rows[1].cells.get("kill");
	assert.deepEqual([c.kind, c.runs, c.details.length], ["broke", 2, 1]);
	assert.deepEqual(m.whole.map((w) => w.cell.kind), ["held"]);
	assert.equal(L.kindOf({ outcome: "constructor" }), "none");
	assert.equal(m.order.get("p1.pg1>1"), 1);
});

test("a service has a lane of its own", () => {
	const t = trace("p1.pg1> write INSERT orders", "p1.http1> call POST /charges", "p1.http1< done 201 POST /charges", "p1.http2> - GET /stock", "p1.http2< - 200 GET /stock");
	t.messages.forEach((m, i) => { if (m.protocol === "http") { m.service = i < 3 ? "payments" : "stock"; m.type = m.dir === ">" ? "request" : "response"; } });
	const rec = record(t), m = L.build(rec, W, false);
	assert.deepEqual(m.columns.map((c) => c.name), ["PostgreSQL", "process 1", "payments", "stock"]);
	assert.equal(m.isEffect(1), true);
	assert.equal(m.isEffect(3), false);
	assert.match(L.sayStep(rec, m, 1, W), /process 1 sends POST \/charges to payments\./);
	assert.match(L.sayStep(rec, m, 4, W), /stock answers process 1: 200 GET \/stock\./);
	assert.equal(L.cannot("fail", { link: "open", state: "waiting", chosen: m.msgs[1], lives: [], alive: true }), "");
	// Live: a message that waits has a lane before any has passed.
	const empty = L.build(record(trace()), W, true, [m.msgs[3]]);
	assert.deepEqual(empty.columns.map((c) => c.name), ["PostgreSQL", "RabbitMQ", "stock"]);
	const mx = L.matrixOf([{ at: "p1.http1>1", message: "POST /charges", fault: "kill", outcome: "ok" }].map((p) => ({ violation: "", detail: "", then: "", ...p })), m.msgs);
	assert.equal(mx.rows[0].at, "p1.http1>1");
});

test("a command that cannot be given says why", () => {
	const publish = { effect: "publish", dir: ">", protocol: "amqp", tag: 1, type: "basic.publish", name: "basic.publish x" };
	const query = { effect: "write", dir: ">", protocol: "pg", type: "Query", name: "INSERT a" };
	const s = { link: "open", state: "waiting", chosen: publish, lives: [{ process: 1, slot: 0, end: "" }], alive: true, selected: 3, last: 3 };
	const why = (act, more) => L.cannot(act, { ...s, ...more });
	for (const act of ["step", "effect", "crash", "cut", "blackhole", "nack", "stop"]) assert.equal(why(act), "", act);
	assert.equal(why("fail"), "fail");
	assert.equal(why("fail", { chosen: query }), "");
	assert.equal(why("fail", { chosen: { ...query, name: "ROLLBACK", effect: "rollback" } }), "fail");
	assert.equal(why("nack", { chosen: query }), "nack");
	assert.equal(why("nack", { chosen: { ...publish, tag: 0 } }), "nack", "no confirms");
	assert.equal(why("rewind"), "rewind");
	assert.equal(why("rewind", { selected: 2 }), "");
	assert.equal(why("restart"), "alive");
	assert.equal(why("restart", { lives: [{ process: 1, slot: 0, end: "was killed" }] }), "");
	assert.equal(why("restart", { lives: [{ process: 1, slot: 0, end: "was killed" }, { process: 2, slot: 0, end: "" }] }), "alive");
	assert.equal(why("step", { chosen: null, state: "running" }), "running");
	assert.equal(why("step", { chosen: null, state: "crashed" }), "crashed");
	assert.equal(why("crash", { chosen: null, alive: false }), "dead");
	assert.equal(why("step", { busy: {} }), "busy");
	for (const link of ["closed", "offline", "connecting"]) assert.equal(why("step", { link }), link);
	for (const key of ["closed", "offline", "connecting", "busy", "running", "ended", "crashed", "dead", "nack", "fail", "alive", "rewind"]) assert.ok(W.cannot[key], key);
});

test("5,000 messages are laid out in time", () => {
	const lines = [];
	for (let i = 0; i < 1000; i++) lines.push("p1.pg1> - BEGIN", "p1.pg1> write UPDATE outbox", "p1.amqp1> publish basic.publish x", "p1.pg1> commit COMMIT", "p1.pg1< done COMMIT done");
	const rec = record(trace(...lines));
	L.build(rec, W, false);
	const at = performance.now();
	const m = L.build(rec, W, false);
	const took = performance.now() - at;
	assert.equal(m.items.length, 5000);
	assert.ok(took < 2000, took + " ms"); // some 30 on a quiet machine; more than this is another order
});

test("hundreds of transactions at once take no hundreds of bars a row", () => {
	const lines = [];
	for (let i = 1; i <= 2000; i++) lines.push("p1.pg" + i + "> - BEGIN");
	const m = build(trace(...lines));
	assert.ok(m.items.reduce((n, i) => n + (i.bars || []).length, 0) < 60000);
});
