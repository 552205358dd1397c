package exercise

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"crashcourse/pkg/crash"
)

func TestService(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }))
	defer s.Close()
	t.Setenv(crash.ServiceEnv("payments"), s.URL)
	t.Setenv(crash.ServiceEnv("stock"), s.URL+"/stock")
	p := &Process{}
	client, url, err := p.Service("payments")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Get(url + "/charges")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if b, _ := io.ReadAll(answer.Body); string(b) != "/charges" {
		t.Errorf("answered %q", b)
	}
	if again, url, err := p.Service("stock"); again != client || url != s.URL+"/stock" || err != nil {
		t.Error(again, url, err)
	}
	if _, _, err := p.Service("nobody"); !errors.Is(err, errServer) {
		t.Errorf("a service that is not there: %v", err)
	}
}
