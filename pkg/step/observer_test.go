package step

import (
	"slices"
	"testing"

	"crashcourse/pkg/servertest"
)

// A table that is divided into partitions is shown once, with the rows of all.
func TestPartitions(t *testing.T) {
	s := servertest.New(t)
	if _, err := s.DB.Exec(t.Context(), `CREATE TABLE seen (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
		CREATE TABLE seen_0 PARTITION OF seen FOR VALUES IN (0); CREATE TABLE seen_1 PARTITION OF seen FOR VALUES IN (1);
		CREATE TABLE parked (id int); INSERT INTO seen VALUES (1, 0), (2, 1)`); err != nil {
		t.Fatal(err)
	}
	o := &Observer{databaseURL: s.DB.Config().ConnString()}
	things, err := o.tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, th := range things {
		names = append(names, th.Name)
	}
	if !slices.Equal(names, []string{"seen", "parked"}) || len(things[0].Rows) != 2 {
		t.Errorf("the tables are %q: %+v", names, things)
	}
	_ = o.db.Close(t.Context())
}
