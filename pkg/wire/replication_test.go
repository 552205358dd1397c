package wire

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestReplication reads a change through a logical replication stream.
func TestReplication(t *testing.T) {
	table := makeTable(t)
	direct := connectPG(t, nil)
	execPG(t, direct, "CREATE PUBLICATION "+table+"_pub FOR TABLE "+table)
	slot := testName + "_" + table

	p := newProxy(t, Config{})
	l := newLane(t, p)
	ctx := within(t, 20*time.Second)
	c, err := pgconn.Connect(ctx, withQuery(pgThrough(l), "replication=database"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := pglogrepl.IdentifySystem(ctx, c); err != nil {
		t.Fatal(err)
	}
	if _, err := pglogrepl.CreateReplicationSlot(ctx, c, slot, "pgoutput", pglogrepl.CreateReplicationSlotOptions{}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		execPG(t, direct, "SELECT pg_drop_replication_slot($1)", slot)
	}()
	err = pglogrepl.StartReplication(ctx, c, slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + table + "_pub'"},
	})
	if err != nil {
		t.Fatal(err)
	}
	execPG(t, direct, "INSERT INTO "+table+" VALUES (1, 'x')")

	var end pglogrepl.LSN
	for end == 0 {
		raw, err := c.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		d, ok := raw.(*pgproto3.CopyData)
		if !ok || d.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		x, err := pglogrepl.ParseXLogData(d.Data[1:])
		if err != nil {
			t.Fatal(err)
		}
		m, err := pglogrepl.Parse(x.WALData)
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := m.(*pglogrepl.CommitMessage); ok {
			end = m.TransactionEndLSN
		}
	}
	if err := pglogrepl.SendStandbyStatusUpdate(ctx, c, pglogrepl.StandbyStatusUpdate{WALWritePosition: end}); err != nil {
		t.Fatal(err)
	}
	if _, err := pglogrepl.SendStandbyCopyDone(ctx, c); err != nil {
		t.Fatal(err)
	}
	closeLane(t, l)

	var confirmed string
	if err := direct.QueryRow(ctx, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1 AND NOT active", slot).Scan(&confirmed); err != nil {
		t.Fatalf("right after Close the slot is still in use: %v", err)
	}
	if got, _ := pglogrepl.ParseLSN(confirmed); got != end {
		t.Errorf("confirmed %s, want %s", confirmed, end)
	}
	// A stream that is cut off in the middle gives its slot back as well.
	l = newLane(t, p)
	c, err = pgconn.Connect(ctx, withQuery(pgThrough(l), "replication=database"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	err = pglogrepl.StartReplication(ctx, c, slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + table + "_pub'"},
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Freeze()
	closeLane(t, l)
	var active bool
	if err := direct.QueryRow(ctx, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&active); err != nil || active {
		t.Errorf("right after Close the slot is in use: %v, %v", active, err)
	}

	var names []string
	for _, m := range p.Trace().Messages {
		names = append(names, m.Name)
	}
	for _, want := range []string{
		"start-up for replication", "IDENTIFY_SYSTEM", "CREATE_REPLICATION_SLOT " + slot, "START_REPLICATION " + slot,
		"wal begin", "wal relation", "wal insert", "wal commit", "standby status",
	} {
		if !slices.Contains(names, clip(want, maxNameLen)) {
			t.Errorf("no %q in %q", want, names)
		}
	}
	for _, m := range p.Trace().Messages {
		if m.Type == "CopyData" && m.Step {
			t.Errorf("%s is a step", m.Name)
		}
	}
}
