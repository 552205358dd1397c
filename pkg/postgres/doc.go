// Package postgres opens sessions with a PostgreSQL server and makes the
// databases and roles that tests, judges and notebooks work in.
//
//	pool, err := postgres.Open(ctx, os.Getenv("DATABASE_URL"))
//	if err != nil {
//		return err // says what failed and what to do
//	}
//	defer pool.Close()
//
// [Open] connects once before it returns, so a wrong password or a server that
// is down shows there and not at the first query.
//
// To give somebody a database of their own, and nothing else:
//
//	password, err := postgres.CreateRole(ctx, admin, "judge_1", postgres.RoleOptions{})
//	err = postgres.CreateDatabase(ctx, admin, "judge_1", postgres.DatabaseOptions{Owner: "judge_1"})
//	url, err := postgres.URL(adminURL, postgres.Change{User: "judge_1", Password: password, Database: "judge_1"})
//
// All functions may be called from several goroutines at once.
package postgres
