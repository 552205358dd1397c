package wire

import (
	"slices"
	"strings"
)

// sqlKind is what a statement does to a transaction and to what outlives it.
type sqlKind byte

const (
	sqlRead sqlKind = iota
	sqlWrite
	sqlBegin
	sqlCommit
	sqlCommitChain // COMMIT AND CHAIN: the next transaction begins at once
	sqlRollback
	sqlRollbackChain
	sqlCopyIn // COPY … FROM STDIN: the write is done by the CopyDone that follows
)

// sqlStmt is one statement as people speak of it.
type sqlStmt struct {
	name string
	kind sqlKind
}

// sqlText is what is known about the SQL of one Query or Parse.
type sqlText struct {
	name  string // of all statements, joined
	text  string // for Message.Detail
	stmts []sqlStmt
}

const (
	maxNameLen  = 60
	maxCached   = 1024    // texts
	maxCacheLen = 4 << 10 // bytes of a text worth keeping
)

// sqlNames names SQL and remembers what it named. It is guarded by the
// ordering lock.
type sqlNames struct {
	detail int
	known  map[string]*sqlText
}

func (n *sqlNames) of(sql []byte) *sqlText {
	if t, ok := n.known[string(sql)]; ok {
		return t
	}
	t := nameSQL(string(sql), n.detail)
	if len(sql) <= maxCacheLen {
		// Texts with literals in them never come again, so the memory is emptied
		// now and then rather than kept sorted by use.
		if n.known == nil || len(n.known) >= maxCached {
			n.known = make(map[string]*sqlText)
		}
		n.known[string(sql)] = t
	}
	return t
}

// nameSQL splits sql into statements and names each.
func nameSQL(sql string, detail int) *sqlText {
	t := &sqlText{text: clip(sql, detail)}
	var names []string
	lex := &sqlLexer{sql: sql}
	for more := true; more; {
		var toks []sqlToken
		toks, more = splitStatement(lex)
		if len(toks) == 0 {
			continue
		}
		s := nameStatement(sql, toks)
		s.name = clip(s.name, maxNameLen)
		t.stmts = append(t.stmts, s)
		names = append(names, s.name)
	}
	t.name = clip(strings.Join(names, "; "), maxNameLen)
	if len(names) == 0 {
		t.name = "empty query"
	}
	return t
}

// splitStatement reads tokens up to the semicolon that ends the statement, and
// tells whether one stood there.
func splitStatement(lex *sqlLexer) (toks []sqlToken, more bool) {
	atomic := false // in the body of CREATE FUNCTION … BEGIN ATOMIC …; END
	for {
		t, ok := lex.next()
		if !ok {
			return toks, false
		}
		if t.kind == tokPunct && t.text == ";" && t.depth == 0 && !atomic {
			return toks, true
		}
		if n := len(toks); n > 1 && toks[0].text == "create" {
			switch {
			case t.is("atomic") && toks[n-1].is("begin"):
				atomic = true
			case t.is("end"):
				atomic = false
			}
		}
		if len(toks) < maxTokens {
			toks = append(toks, t)
		}
	}
}

func (t sqlToken) is(words ...string) bool {
	return t.kind == tokWord && slices.Contains(words, t.text)
}

func (t sqlToken) punct(c byte) bool { return t.kind == tokPunct && t.text[0] == c }

// words are the tokens of one statement, with helpers that never go out of
// bounds.
type words []sqlToken

func (w words) at(i int) sqlToken {
	if i < 0 || i >= len(w) {
		return sqlToken{}
	}
	return w[i]
}

// after returns the index after a run of the given words that starts at i, any
// of which may be missing.
func (w words) after(i int, optional ...string) int {
	for _, word := range optional {
		if w.at(i).is(word) {
			i++
		}
	}
	return i
}

// object returns the last part of the dotted name at i.
func (w words) object(i int) string {
	if k := w.at(i).kind; k != tokWord && k != tokQuoted {
		return ""
	}
	for w.at(i+1).kind == tokPunct && w.at(i+1).text == "." {
		if k := w.at(i + 2).kind; k != tokWord && k != tokQuoted {
			break
		}
		i += 2
	}
	return w.at(i).text
}

// find returns the index of the first of the words at or after i at the given
// depth (any depth when negative), or -1.
func (w words) find(i, depth int, any ...string) int {
	for ; i < len(w); i++ {
		if (depth < 0 || w[i].depth == depth) && w[i].is(any...) {
			return i
		}
	}
	return -1
}

func named(verb, object string) string {
	if object == "" {
		return verb
	}
	return verb + " " + object
}

// nameStatement names one statement by its verb and what it acts on.
func nameStatement(sql string, toks []sqlToken) sqlStmt {
	w := words(toks)
	first := w.at(0)
	verb := strings.ToUpper(first.text)
	switch first.text {
	case "begin", "start":
		return sqlStmt{"BEGIN", sqlBegin}
	case "commit", "end":
		if w.at(1).is("prepared") {
			return sqlStmt{"COMMIT PREPARED", sqlCommit}
		}
		if w.chained() {
			return sqlStmt{"COMMIT AND CHAIN", sqlCommitChain}
		}
		return sqlStmt{"COMMIT", sqlCommit}
	case "rollback", "abort":
		i := w.after(1, "work", "transaction")
		switch {
		case w.at(1).is("prepared"):
			return sqlStmt{"ROLLBACK PREPARED", sqlRollback}
		case w.at(i).is("to"):
			return sqlStmt{named("ROLLBACK TO", w.object(w.after(i+1, "savepoint"))), sqlRead}
		case w.chained():
			return sqlStmt{"ROLLBACK AND CHAIN", sqlRollbackChain}
		}
		return sqlStmt{"ROLLBACK", sqlRollback}
	case "savepoint":
		return sqlStmt{named(verb, w.object(1)), sqlRead}
	case "release":
		return sqlStmt{named("RELEASE", w.object(w.after(1, "savepoint"))), sqlRead}
	case "prepare":
		if w.at(1).is("transaction") {
			return sqlStmt{"PREPARE TRANSACTION", sqlCommit}
		}
		return sqlStmt{named(verb, w.object(1)), sqlRead}
	case "execute":
		// What it executes is not known here, so it is taken to write.
		return sqlStmt{named(verb, w.object(1)), sqlWrite}
	case "insert", "update", "delete", "merge":
		return w.nameChange(0)
	case "select", "values", "table", "with", "(":
		return w.nameQuery(sql)
	case "copy":
		return w.nameCopy()
	case "listen", "unlisten", "deallocate", "close", "fetch", "move", "declare", "discard":
		return sqlStmt{named(verb, w.object(w.after(1, "prepare"))), sqlRead}
	case "set", "reset", "show":
		return sqlStmt{named(verb, w.object(w.after(1, "session", "local"))), sqlRead}
	case "notify":
		return sqlStmt{named(verb, w.object(1)), sqlWrite}
	case "lock":
		return sqlStmt{named(verb, w.object(w.after(1, "table", "only"))), sqlRead}
	case "truncate":
		return sqlStmt{named(verb, w.object(w.after(1, "table", "only"))), sqlWrite}
	case "create", "alter", "drop":
		return w.nameDefinition(verb)
	case "explain":
		return w.nameExplain(sql)
	case "start_replication":
		return sqlStmt{named("START_REPLICATION", w.object(w.after(1, "slot"))), sqlRead}
	case "create_replication_slot", "drop_replication_slot":
		return sqlStmt{named(verb, w.object(1)), sqlWrite}
	case "identify_system", "read_replication_slot", "timeline_history", "base_backup", "checkpoint":
		return sqlStmt{verb, sqlRead}
	}
	if first.kind != tokWord {
		return sqlStmt{clip(sql[first.pos:], maxNameLen), sqlWrite}
	}
	// DO, CALL, GRANT, VACUUM and whatever else there is.
	return sqlStmt{verb, sqlWrite}
}

// chained tells whether COMMIT or ROLLBACK is followed by AND CHAIN.
func (w words) chained() bool {
	i := w.find(1, 0, "and")
	return i > 0 && w.at(i+1).is("chain")
}

// nameChange names the INSERT, UPDATE, DELETE or MERGE at i.
func (w words) nameChange(i int) sqlStmt {
	verb := strings.ToUpper(w.at(i).text)
	return sqlStmt{named(verb, w.object(w.after(i+1, "into", "from", "only"))), sqlWrite}
}

// nameQuery names a statement that begins with SELECT, VALUES, TABLE or WITH.
func (w words) nameQuery(sql string) sqlStmt {
	// A data-changing part, the outermost one, gives the statement its name. It
	// stands at the top after WITH, or in a CTE, after "AS (".
	best := -1
	for i, t := range w {
		if !t.is("insert", "update", "delete", "merge") || best >= 0 && t.depth >= w[best].depth {
			continue
		}
		prev := w.at(i - 1)
		top := i > 0 && prev.punct(')') && w[0].is("with") && t.depth == 0
		inner := prev.punct('(') && (w.at(i-2).is("as", "materialized"))
		if top || inner {
			best = i
		}
	}
	if best >= 0 {
		return w.nameChange(best)
	}
	if w.at(0).is("values", "table") {
		return sqlStmt{named(strings.ToUpper(w[0].text), w.object(1)), sqlRead}
	}
	sel := w.find(0, 0, "select")
	if sel < 0 {
		sel = w.find(0, -1, "select")
	}
	if sel < 0 {
		return sqlStmt{strings.ToUpper(w.at(0).text), sqlRead}
	}
	depth := w[sel].depth
	if i := w.callOf("pg_notify"); i >= 0 {
		return sqlStmt{"SELECT pg_notify", sqlWrite}
	}
	from := w.find(sel, depth, "from")
	if into := w.find(sel, depth, "into"); into > 0 && (from < 0 || into < from) {
		return sqlStmt{named("SELECT INTO", w.object(w.after(into+1, "temporary", "temp", "unlogged", "table"))), sqlWrite}
	}
	if from < 0 {
		return w.nameCall(sql, sel)
	}
	return sqlStmt{named("SELECT", w.source(from+1)) + w.lockClause(), sqlRead}
}

// source names the first table that a FROM list at i reads, going into
// sub-selects; a function there is named like a table.
func (w words) source(i int) string {
	for w.at(i).punct('(') || w.at(i).is("only", "lateral") {
		i++
	}
	if w.at(i).is("select") {
		if from := w.find(i, w[i].depth, "from"); from >= 0 {
			return w.source(from + 1)
		}
		return ""
	}
	return w.object(i)
}

// lockClause returns the first FOR UPDATE or the like, with a space before it.
func (w words) lockClause() string {
	for i, t := range w {
		if !t.is("for") {
			continue
		}
		end := w.after(i+1, "no", "key")
		if !w.at(end).is("update", "share") {
			continue
		}
		var b strings.Builder
		for _, t := range w[i : end+1] {
			b.WriteByte(' ')
			b.WriteString(strings.ToUpper(t.text))
		}
		for _, t := range w[end+1:] {
			if t.is("nowait") {
				b.WriteString(" NOWAIT")
				break
			}
			if t.is("skip") {
				b.WriteString(" SKIP LOCKED")
				break
			}
			if t.depth != w[i].depth {
				break
			}
		}
		return b.String()
	}
	return ""
}

// callOf returns where the function is called, or -1.
func (w words) callOf(function string) int {
	for i, t := range w {
		if t.is(function) && w.at(i+1).punct('(') {
			return i
		}
	}
	return -1
}

// nameCall names a SELECT without FROM. One that calls a function this package
// does not know is taken to write.
func (w words) nameCall(sql string, sel int) sqlStmt {
	for i := sel + 1; i < len(w); i++ {
		if w[i].kind != tokWord || !w.at(i+1).punct('(') || w[i].is(notFunctions...) {
			continue
		}
		kind := sqlWrite
		if readOnly(w[i].text) {
			kind = sqlRead
		}
		return sqlStmt{"SELECT " + w[i].text, kind}
	}
	if sel == len(w)-1 {
		return sqlStmt{"SELECT", sqlRead}
	}
	what := strings.Join(strings.Fields(sql[w[sel+1].pos:w[len(w)-1].end]), " ")
	return sqlStmt{"SELECT " + clip(what, 24), sqlRead}
}

// notFunctions can stand before a parenthesis without being called.
var notFunctions = []string{
	"in", "exists", "and", "or", "not", "as", "any", "all", "some", "select", "values", "array", "row",
	"case", "when", "then", "else", "coalesce", "nullif", "greatest", "least", "cast", "over", "filter",
	"numeric", "varchar", "char", "timestamp", "timestamptz", "interval", "distinct", "on",
}

// readFunctions are functions without lasting effect that are often selected
// alone.
var readFunctions = []string{
	"count", "sum", "min", "max", "avg", "now", "version", "random", "length", "lower", "upper", "concat",
	"format", "md5", "sha256", "encode", "decode", "date_trunc", "date_part", "extract", "age", "abs",
	"round", "floor", "ceil", "substring", "substr", "replace", "trim", "position", "left", "right",
	"clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday", "gen_random_uuid",
	"current_setting", "set_config", "current_database", "current_schema", "current_schemas",
	"txid_current", "txid_current_if_assigned", "generate_series", "unnest", "nextval", "currval", "lastval",
	"row_to_json", "to_json", "to_jsonb", "to_char", "to_date", "to_timestamp", "to_number", "to_regclass",
	"array_agg", "string_agg", "array_length", "array_to_string", "string_to_array", "hashtext",
	"hashtextextended", "col_description", "obj_description", "has_table_privilege", "has_schema_privilege",
	"inet_server_addr", "inet_server_port", "inet_client_addr", "inet_client_port",
}

// writeFunctions are PostgreSQL's own that do write.
var writeFunctions = []string{
	"pg_notify", "pg_logical_emit_message", "pg_create_logical_replication_slot",
	"pg_create_physical_replication_slot", "pg_drop_replication_slot", "pg_replication_slot_advance",
	"pg_logical_slot_get_changes", "pg_logical_slot_get_binary_changes",
}

func readOnly(function string) bool {
	if slices.Contains(writeFunctions, function) {
		return false
	}
	for _, prefix := range []string{"pg_", "json_", "jsonb_", "uuid_"} {
		if strings.HasPrefix(function, prefix) {
			return true
		}
	}
	return slices.Contains(readFunctions, function)
}

// nameCopy names COPY table or COPY (query).
func (w words) nameCopy() sqlStmt {
	name, kind := named("COPY", w.object(1)), sqlRead
	if w.at(1).punct('(') {
		name = named("COPY", w.source(1))
	}
	if from := w.find(1, 0, "from"); from > 0 {
		kind = sqlWrite
		if w.at(from + 1).is("stdin") {
			kind = sqlCopyIn
		}
	}
	return sqlStmt{name, kind}
}

// nameDefinition names CREATE TABLE x, DROP INDEX CONCURRENTLY IF EXISTS x and
// their like.
func (w words) nameDefinition(verb string) sqlStmt {
	i := 1
	for w.at(i).is("or", "replace", "temp", "temporary", "unlogged", "global", "local", "unique", "recursive", "constraint") {
		i++
	}
	kind := strings.ToUpper(w.at(i).text)
	if kind == "MATERIALIZED" || kind == "FOREIGN" || kind == "EVENT" {
		i++
		kind += " " + strings.ToUpper(w.at(i).text)
	}
	i = w.after(i+1, "concurrently", "if", "not", "exists", "only")
	return sqlStmt{named(named(verb, kind), w.object(i)), sqlWrite}
}

// nameExplain names EXPLAIN; with ANALYZE it does what the statement does.
func (w words) nameExplain(sql string) sqlStmt {
	i := w.find(1, 0, "select", "insert", "update", "delete", "merge", "values", "with", "execute", "create")
	if i < 0 {
		return sqlStmt{"EXPLAIN", sqlRead}
	}
	inner := nameStatement(sql, w[i:])
	if j := w.find(1, -1, "analyze", "analyse"); j < 0 || j > i {
		inner.kind = sqlRead
	}
	return sqlStmt{"EXPLAIN " + inner.name, inner.kind}
}

// simple returns what a Query with this text does when it is sent inside or
// outside a transaction block, and whether a block is open afterwards.
func (t *sqlText) simple(inBlock bool) (Effect, bool) {
	effect, wrote := NoEffect, false
	for _, s := range t.stmts {
		switch s.kind {
		case sqlWrite:
			wrote = true
		case sqlCopyIn:
			effect = stronger(effect, Write)
		case sqlBegin:
			inBlock = true
		case sqlCommit, sqlCommitChain:
			effect, wrote = Commit, false
			inBlock = s.kind == sqlCommitChain
		case sqlRollback, sqlRollbackChain:
			effect, wrote = stronger(effect, Rollback), false
			inBlock = s.kind == sqlRollbackChain
		}
	}
	if wrote && inBlock {
		effect = stronger(effect, Write)
	} else if wrote {
		effect = Commit // what is left of the text is a transaction of its own
	}
	return effect, inBlock
}

// extended returns what an Execute of this text does.
func (t *sqlText) extended(inBlock bool) (Effect, bool) {
	if len(t.stmts) == 0 {
		return NoEffect, inBlock
	}
	switch t.stmts[0].kind {
	case sqlWrite, sqlCopyIn:
		return Write, inBlock
	case sqlBegin:
		return NoEffect, true
	case sqlCommit:
		return Commit, false
	case sqlCommitChain:
		return Commit, true
	case sqlRollback:
		return Rollback, false
	case sqlRollbackChain:
		return Rollback, true
	}
	return NoEffect, inBlock
}

// stronger returns the effect that matters more.
func stronger(a, b Effect) Effect {
	order := []Effect{NoEffect, Write, Rollback, Commit}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}

// stmt returns the i-th statement.
func (t *sqlText) stmt(i int) sqlStmt {
	if i >= 0 && i < len(t.stmts) {
		return t.stmts[i]
	}
	return sqlStmt{name: t.name}
}
