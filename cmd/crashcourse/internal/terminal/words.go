package terminal

import (
	"strconv"
	"strings"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/step"
	"crashcourse/pkg/view"
	"crashcourse/pkg/wire"
)

// All that the screen says stands in this file, but for what comes with a
// recording or a session.

const (
	stepOf       = "step {i} of {n}"
	stepZero     = "before the first of {n}"
	noSteps      = "no messages yet"
	noMessages   = "This run has no messages."
	nothingSent  = "Nothing has been sent."
	tooSmall     = "This window is too small."
	noScenes     = "This run was recorded without its tables and queues."
	noSceneYet   = "The tables and queues had not been read yet here."
	noThings     = "There are no tables and no queues."
	emptyThing   = "empty"
	moreRows     = "… {n} more"
	morePane     = "… {n} more lines: d goes down, u up"
	sends        = "{from} sends {message} to {to}."
	answers      = "{from} answers {to}: {message}."
	lost         = "{message} from {from} never reaches {to}."
	waits        = "{message} from {from} to {to} waits for you."
	waitsMore    = " {n} more: tab chooses."
	faultHere    = "Here the fault struck: {what}."
	nextWaits    = "next"
	otherWaits   = "waits"
	neverArrived = "never arrived"
	shortLost    = "lost"

	stateRunning = "The processes are busy."
	stateCrashed = "Crashed. r starts it again, w makes the run anew."
	stateEnded   = "All processes have ended. r starts one again, w makes the run anew."
	closing      = "Ending the processes …"
	over         = "The session is over: {text} You can still look at what happened."
	overShort    = "session over"
	doing        = "{act} …"

	newest        = "This is the newest message. Space lets the next one pass."
	lastStep      = "This is the last message."
	firstStep     = "This is the start."
	noEffect      = "No effect after this step."
	noEffectThere = "No effect before this step."
	noFault       = "No fault struck after this step."
	nothingBroke  = "No invariant broke in this run."
	busy          = "The last command is still being carried out."
	rewindWhere   = "Go back with ← to a step before the last one; w makes the run anew up to it."
	oneWaits      = "Only one message waits."
	noneWaits     = "Nothing waits."
	couldNot      = "That did not work: {text}"
	lostFeed      = "The session cannot be followed any more: {text}"
)

// acts are the commands as they are said while they are carried out.
var acts = map[step.Act]string{
	step.Pass: "Passing", step.ToEffect: "Running to the next effect", step.Crash: "Crashing", step.Cut: "Cutting the connection",
	step.Blackhole: "Swallowing", step.Nack: "Refusing", step.Fail: "Failing", step.Restart: "Starting again", step.Rewind: "Making the run anew",
}

var servers = map[wire.Protocol][2]string{ // and in few letters
	wire.PG:   {"PostgreSQL", "PG"},
	wire.AMQP: {"RabbitMQ", "MQ"},
	wire.HTTP: {"", "HT"}, // a service has a name
}

var fates = map[view.Fate][2]string{ // and in few letters
	view.FateOpen:       {"not committed yet", "open"},
	view.FateCommitted:  {"committed", "kept"},
	view.FateRolledBack: {"rolled back", "dropped"},
}

// plural is a text for one thing, and one for any other number of them.
type plural [2]string

var (
	openSay    = plural{"{n} write is not committed yet.", "{n} writes are not committed yet."}
	keptSay    = plural{"{n} write is committed now.", "{n} writes are committed now."}
	droppedSay = plural{"{n} write is dropped: it was never committed.", "{n} writes are dropped: they were never committed."}
	rowsSay    = plural{"{n} row", "{n} rows"}
	messagesIn = plural{"{n} message", "{n} messages"}
)

var marks = map[view.Mark][2]string{ // the sign, the word
	view.Same:    {" ", ""},
	view.New:     {"+", "new"},
	view.Changed: {"~", "changed"},
	view.Gone:    {"-", "gone"},
}

// hint is a key and what it does, for the last line and for the help.
type hint struct{ key, does string }

var looking = []hint{{"→", "next"}, {"←", "back"}, {"e", "effect"}, {"b", "broke"}, {"f", "fault"}, {"?", "keys"}, {"q", "quit"}}

// stepping are the hints of a live session, the most useful first.
func stepping(state step.State, chosen *step.Held, many, dead bool) []hint {
	var all []hint
	if chosen != nil {
		all = []hint{{"space", "pass"}, {"e", "to effect"}, {"c", "crash"}}
	} else if state == step.Running {
		all = []hint{{"c", "crash"}}
	}
	if dead {
		all = append(all, hint{"r", "restart"})
	}
	if chosen != nil {
		for _, f := range chosen.Faults {
			switch f {
			case crash.Nack:
				all = append(all, hint{"k", "nack"})
			case crash.FailStatement:
				all = append(all, hint{"f", "fail"})
			}
		}
		all = append(all, hint{"x", "cut"}, hint{"h", "blackhole"})
		if many {
			all = append(all, hint{"tab", "other"})
		}
	}
	return append(all, hint{"←", "back"}, hint{"w", "rewind"}, hint{"?", "keys"}, hint{"q", "quit"})
}

var lookingHelp = []hint{
	{"→ n space", "next message"},
	{"← p", "previous message"},
	{"e E", "next, previous effect: a message that changes what outlives the process"},
	{"f", "next fault, or where an invariant broke"},
	{"b", "where an invariant broke"},
	{"home end", "the start, the last message"},
	{"PgUp PgDn", "a page of messages"},
	{"d u", "down and up in the tables and queues"},
	{"?", "these keys; any other key goes back"},
	{"q Ctrl-C", "quit"},
}

var steppingHelp = []hint{
	{"space n", "let the next message pass"},
	{"e", "let messages pass until one waits that changes something, or tells of it"},
	{"tab", "choose another waiting message"},
	{"c", "crash the process whose message waits"},
	{"x", "cut the connection before the message; the process lives"},
	{"h", "blackhole: swallow the message and all that follows it there"},
	{"k", "nack: RabbitMQ refuses the message"},
	{"f", "fail: the statement, or the request to a service, is answered with an error"},
	{"r", "start a process that has ended again"},
	{"w", "rewind: make the run anew, up to the selected message"},
	{"← → E home", "look at the messages before; end is now"},
	{"PgUp PgDn", "a page of messages"},
	{"d u", "down and up in the tables and queues"},
	{"?", "these keys; any other key goes back"},
	{"q Ctrl-C", "end the processes and quit"},
}

var signs = []hint{
	{"●", "changes what outlives the process"},
	{"✗", "a fault struck, a message never arrived, an invariant broke"},
	{"○ ■", "a process starts, has ended"},
	{"+ ~ -", "a row is new, has changed, is gone since the step before"},
	{"PG MQ HT", "PostgreSQL, RabbitMQ, an HTTP service (in a narrow window)"},
	{"open", "not committed yet (in a narrow window)"},
	{"kept", "committed; dropped: rolled back; lost: never arrived"},
}

const (
	keysTitle  = "Keys"
	signsTitle = "Signs"
)

// fill puts values in place of the names in braces. Values come in pairs with
// their names, and are not searched for names themselves.
func fill(text string, pairs ...string) string {
	for i := 0; i < len(pairs); i += 2 {
		pairs[i] = "{" + pairs[i] + "}"
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func (p plural) of(n int) string {
	text := p[1]
	if n == 1 {
		text = p[0]
	}
	return fill(text, "n", strconv.Itoa(n))
}
