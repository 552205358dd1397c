package wire

import (
	"bytes"
	"strings"
	"testing"
)

// Sections are those of the chapter Frontend/Backend Protocol in the manual of
// PostgreSQL 18.

// pg builds a message of a type and its body.
func pg(kind byte, body ...string) string {
	b := strings.Join(body, "")
	return string(kind) + be(uint32(len(b)+4)) + b
}

// pgHead builds a packet without a type.
func pgHead(body ...string) string {
	b := strings.Join(body, "")
	return be(uint32(len(b)+4)) + b
}

// cmd is one statement in the extended protocol, by the unnamed statement and
// the unnamed portal.
func cmd(sql string) string {
	return pg('P', "\x00", sql, "\x00", be(uint16(0))) + pg('B', "\x00\x00", be[uint16](0, 0, 0)) + pg('E', "\x00", be(uint32(0)))
}

const (
	pgVersion30 = "\x00\x03\x00\x00"
	pgVersion32 = "\x00\x03\x00\x02"
	pgAlice     = "user\x00alice\x00database\x00shop\x00\x00"
)

var (
	pgSync   = pg('S')
	pgIdle   = pg('Z', "I")
	pgParsed = pg('1')
	pgBound  = pg('2')
)

// pgStarted is a start-up without a password.
var pgStarted = []line{
	up(pgHead(pgVersion30, pgAlice), "start-up"),
	down(pg('R', be(uint32(0)))+pg('K', be[uint32](4711, 815))+pgIdle, "authentication, backend key data, ready"),
}

func begun(lines ...line) []line { return append(pgStarted[:len(pgStarted):len(pgStarted)], lines...) }

var pgVectors = []vector{
	{"Protocol Versions: 3.2, a cancel key of 256 bytes", []line{
		up(pgHead(pgVersion32, pgAlice), "start-up"),
		down(pg('R', be(uint32(0)))+pg('S', "server_version\x0018.4\x00")+pg('K', be(uint32(4711)), strings.Repeat("k", 256))+pgIdle,
			"authentication, parameter status, backend key data, ready"),
	}},
	{"Protocol Versions: negotiated down, an option not known", []line{
		up(pgHead("\x00\x03\x27\x0f", "user\x00alice\x00_pq_.command_tag\x001\x00\x00"), "start-up"),
		down(pg('v', be[uint32](0x00030000, 1), "_pq_.command_tag\x00")+pg('R', be(uint32(0)))+pgIdle,
			"negotiate protocol version, authentication, ready"),
	}},
	{"SASL Authentication: OAUTHBEARER, which may fail and go on", []line{
		up(pgHead(pgVersion30, pgAlice), "start-up"),
		down(pg('R', be(uint32(10)), "SCRAM-SHA-256\x00OAUTHBEARER\x00\x00"), "authentication"),
		up(pg('p', "OAUTHBEARER\x00", be(uint32(2)), "n,"), "password"),
		down(pg('R', be(uint32(11)), `{"status":"invalid_token"}`), "authentication"),
		up(pg('p', "\x01"), "password"),
		down(pg('E', "SFATAL\x00VFATAL\x00C28000\x00MOAuth bearer authentication failed\x00\x00"), "FATAL 28000 OAuth bearer authentication failed"),
	}},
	{"Simple Query: statements, a notice, parameters and a notification in between", begun(
		up(pg('Q', "SET TimeZone = 'UTC'; INSERT INTO t VALUES (1); SELECT id FROM t\x00"), "*SET timezone; INSERT t; SELECT t"),
		down(pg('C', "SET\x00")+pg('S', "TimeZone\x00UTC\x00")+pg('N', "SNOTICE\x00C00000\x00Mhello\x00\x00")+pg('C', "INSERT 0 1\x00"),
			"*SET timezone done, parameter status, NOTICE 00000 hello, *INSERT t done"),
		down(pg('A', be(uint32(4712)), "outbox\x00{}\x00")+pg('T', be(uint16(1)), "id\x00", be[uint32](0), be(uint16(0)), be[uint32](23), "\x00\x04\xff\xff\xff\xff\x00\x00"),
			"*notification outbox, row description"),
		down(pg('D', be(uint16(1)), be(uint32(1)), "1")+pg('A', be(uint32(4712)), "outbox\x00{}\x00")+pg('D', be(uint16(1)), be(uint32(0xffffffff))),
			"row, *notification outbox, row"),
		down(pg('C', "SELECT 2\x00")+pgIdle, "*SELECT t done, ready"),
	)},
	{"Simple Query: empty", begun(
		up(pg('Q', "\x00"), "empty query"),
		down(pg('I')+pgIdle, "empty query done, ready"),
	)},
	{"Extended Query: a portal read in parts, then closed", begun(
		up(pg('P', "s\x00", "SELECT id FROM t\x00", be(uint16(0)))+pg('D', "Ss\x00")+pg('B', "p\x00s\x00", be[uint16](0, 0, 0))+
			pg('E', "p\x00", be(uint32(2)))+pg('H'),
			"parse SELECT t, describe SELECT t, bind SELECT t, *SELECT t, flush"),
		down(pgParsed+pg('t', be(uint16(0)))+pg('T', be(uint16(0)))+pgBound+pg('D', be(uint16(0)))+pg('D', be(uint16(0)))+pg('s'),
			"parse complete, parameter description, row description, bind complete, row, *SELECT t suspended"),
		up(pg('E', "p\x00", be(uint32(0)))+pg('C', "Pp\x00")+pgSync, "*SELECT t, close SELECT t, sync"),
		down(pg('D', be(uint16(0)))+pg('C', "SELECT 1\x00")+pg('3')+pgIdle, "row, *SELECT t done, close complete, ready"),
	)},
	{"Extended Query: counts over 32 bits", begun(
		up(cmd("DELETE FROM t")+pgSync, "parse DELETE t, bind DELETE t, *DELETE t, *sync commits DELETE t"),
		down(pgParsed+pgBound+pg('C', "DELETE 18446744073709551615\x00")+pgIdle, "parse complete, bind complete, *DELETE t done, ready"),
	)},
	{"Pipelining: three Syncs at once, an error before the second", begun(
		up(cmd("INSERT INTO a VALUES (1)")+pgSync+cmd("INSERT INTO b VALUES (1)")+cmd("INSERT INTO c VALUES (1)")+pgSync+cmd("SELECT 1")+pgSync,
			"parse INSERT a, bind INSERT a, *INSERT a, *sync commits INSERT a, "+
				"parse INSERT b, bind INSERT b, *INSERT b, parse INSERT c, bind INSERT c, *INSERT c, *sync commits 2 writes, "+
				"parse SELECT 1, bind SELECT 1, *SELECT 1, sync"),
		down(pgParsed+pgBound+pg('C', "INSERT 0 1\x00")+pgIdle, "parse complete, bind complete, *INSERT a done, ready"),
		down(pgParsed+pgBound+pg('E', "SERROR\x00VERROR\x00C23505\x00Mtwice\x00\x00")+pgIdle, "parse complete, bind complete, *ERROR 23505 twice, ready"),
		down(pgParsed+pgBound+pg('D', be(uint16(0)))+pg('C', "SELECT 1\x00")+pgIdle, "parse complete, bind complete, row, *SELECT 1 done, ready"),
	)},
	{"Pipelining: sent while the server skips up to the Sync", begun(
		up(cmd("INSERT INTO a VALUES (1)")+pg('H'), "parse INSERT a, bind INSERT a, *INSERT a, flush"),
		down(pg('E', "SERROR\x00VERROR\x00C42P01\x00Mno table\x00\x00"), "*ERROR 42P01 no table"),
		up(cmd("INSERT INTO b VALUES (1)")+pgSync+cmd("SELECT 1")+pgSync,
			"parse INSERT b, bind INSERT b, *INSERT b, sync, parse SELECT 1, bind SELECT 1, *SELECT 1, sync"),
		down(pgIdle+pgParsed+pgBound+pg('C', "SELECT 1\x00")+pgIdle, "ready, parse complete, bind complete, *SELECT 1 done, ready"),
	)},
	{"Function Call, and one that fails", begun(
		up(pg('F', be(uint32(1598)), be[uint16](0, 0, 1)), "*FunctionCall"),
		down(pg('V', be(uint32(8)), "12345678")+pgIdle, "*FunctionCall done, ready"),
		up(pg('F', be(uint32(1598)), be[uint16](0, 0, 1)), "*FunctionCall"),
		down(pg('E', "SERROR\x00VERROR\x00C42883\x00Mno function\x00\x00")+pgIdle, "*ERROR 42883 no function, ready"),
		up(pg('Q', "SELECT 1\x00"), "*SELECT 1"),
		down(pg('C', "SELECT 1\x00")+pgIdle, "*SELECT 1 done, ready"),
	)},
	{"COPY Operations: in, a Sync behind the Execute is ignored", begun(
		up(cmd("COPY t FROM STDIN")+pgSync, "parse COPY t, bind COPY t, *COPY t, sync"),
		down(pgParsed+pgBound+pg('G', "\x00", be(uint16(1)), be(uint16(0))), "parse complete, bind complete, copy in response"),
		up(pg('d', "1\n")+pg('d', "2\n")+pg('H')+pg('d', "3\n"), "copy data, flush, copy data"),
		up(pg('c')+pgSync, "*COPY t end, *sync commits COPY t"),
		down(pg('C', "COPY 3\x00")+pgIdle, "*COPY t done, ready"),
		up(cmd("SELECT 1")+pgSync, "parse SELECT 1, bind SELECT 1, *SELECT 1, sync"),
		down(pgParsed+pgBound+pg('C', "SELECT 1\x00")+pgIdle, "parse complete, bind complete, *SELECT 1 done, ready"),
	)},
	{"COPY Operations: in, the table is missing", begun(
		up(cmd("COPY t FROM STDIN")+pgSync, "parse COPY t, bind COPY t, *COPY t, sync"),
		down(pgParsed+pgBound+pg('E', "SERROR\x00VERROR\x00C42P01\x00Mno table\x00\x00")+pgIdle, "parse complete, bind complete, *ERROR 42P01 no table, ready"),
		up(cmd("SELECT 1")+pgSync, "parse SELECT 1, bind SELECT 1, *SELECT 1, sync"),
		down(pgParsed+pgBound+pg('C', "SELECT 1\x00")+pgIdle, "parse complete, bind complete, *SELECT 1 done, ready"),
	)},
	{"COPY Operations: in, the data is bad", begun(
		up(cmd("COPY t FROM STDIN")+pgSync, "parse COPY t, bind COPY t, *COPY t, sync"),
		down(pgParsed+pgBound+pg('G', "\x00", be(uint16(1)), be(uint16(0))), "parse complete, bind complete, copy in response"),
		up(pg('d', "x\n"), "copy data"),
		down(pg('E', "SERROR\x00VERROR\x00C22P02\x00Mno number\x00\x00"), "*ERROR 22P02 no number"),
		up(pg('d', "2\n")+pg('c')+pgSync, "copy data, *CopyDone, sync"),
		down(pgIdle, "ready"),
		up(cmd("SELECT 1")+pgSync, "parse SELECT 1, bind SELECT 1, *SELECT 1, sync"),
		down(pgParsed+pgBound+pg('C', "SELECT 1\x00")+pgIdle, "parse complete, bind complete, *SELECT 1 done, ready"),
	)},
	{"COPY Operations: in, the client gives up", begun(
		up(pg('Q', "COPY t FROM STDIN\x00"), "*COPY t"),
		down(pg('G', "\x01", be(uint16(0))), "copy in response"),
		up(pg('d', "1\n")+pg('f', "no more\x00"), "copy data, *CopyFail"),
		down(pg('E', "SERROR\x00VERROR\x00C57014\x00Mno more\x00\x00")+pgIdle, "*ERROR 57014 no more, ready"),
	)},
	{"COPY Operations: out, parameters in between", begun(
		up(pg('Q', "COPY t TO STDOUT\x00"), "*COPY t"),
		down(pg('H', "\x00", be(uint16(1)), be(uint16(0)))+pg('d', "1\n")+pg('S', "a\x00b\x00")+pg('d', "2\n")+pg('c')+pg('C', "COPY 2\x00")+pgIdle,
			"copy out response, copy data, parameter status, copy data, copy done, *COPY t done, ready"),
	)},
	{"Streaming Replication Protocol: both ways, with a transaction in progress", []line{
		up(pgHead(pgVersion30, "user\x00alice\x00replication\x00database\x00\x00"), "start-up for replication"),
		down(pg('R', be(uint32(0)))+pgIdle, "authentication, ready"),
		up(pg('Q', "START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '4', streaming 'parallel', publication_names 'p')\x00"), "*START_REPLICATION s"),
		down(pg('W', "\x00", be(uint16(0))), "copy both response"),
		down(pg('d', "k", be[uint64](1, 2), "\x01"), "keepalive"),
		up(pg('d', "r", be[uint64](1, 1, 1, 0), "\x00")+pg('d', "h", be(uint64(0)), be[uint32](7, 0, 0, 0)), "standby status, hot standby feedback"),
		down(pg('d', "w", be[uint64](1, 2, 3), "S", be(uint32(700)), "\x01")+pg('d', "w", be[uint64](1, 2, 3), "I", be[uint32](700, 1))+
			pg('d', "w", be[uint64](1, 2, 3), "E")+pg('d', "w", be[uint64](1, 2, 3), "c", be(uint32(700)), "\x00", be[uint64](1, 2, 3)),
			"wal stream start, wal insert, wal stream stop, wal stream commit"),
		up(pg('c'), "*CopyDone"),
		down(pg('c')+pg('C', "COPY 0\x00")+pgIdle, "copy done, *START_REPLICATION s done, ready"),
	}},
	{"Termination", begun(up(pg('X'), "terminate"))},
	{"Message Formats: one of a type that is not known", begun(
		down(pg('~', "later"), "'~'"),
		up(pg('~', "later"), "'~'"),
	)},
}

func TestPostgresVectors(t *testing.T) {
	speak(t, pgVectors, func() map[Direction]codec {
		s := newPGSession(&sqlNames{detail: defaultMaxDetail}, defaultMaxDetail)
		return map[Direction]codec{ToServer: &pgUp{s: s}, ToClient: &pgDown{s: s}}
	}, bytes.Equal)
}
