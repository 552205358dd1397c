package breaker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"crashcourse/pkg/exercise"
)

func readSettings(arg json.RawMessage) (s Settings, err error) {
	if err := json.Unmarshal(arg, &s); err != nil {
		return s, fmt.Errorf("breaker: read the settings: %w", err)
	}
	return s, nil
}

// client calls the payment service. Each request has a connection of its own:
// net/http would repeat one with an Idempotency-Key, unasked, when a connection
// that was used before breaks.
func client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// charge asks the payment service to charge, once.
func charge(ctx context.Context, key string, p Payment) error {
	body, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("breaker: encode a charge: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("SERVICE_PAYMENTS_URL")+"/charges", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("breaker: make the request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	answer, err := client().Do(r)
	if err != nil {
		return fmt.Errorf("breaker: ask the payment service: %w", err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return fmt.Errorf("breaker: read the payment service's answer: %w", err)
	}
	switch answer.StatusCode {
	case http.StatusOK, http.StatusCreated:
		return nil
	case http.StatusPaymentRequired:
		return fmt.Errorf("breaker: the payment service answers %s: %w", answer.Status, ErrDeclined)
	}
	return fmt.Errorf("breaker: the payment service answers %s", answer.Status)
}

// serve is the checkout: it listens at addr and calls pay for each payment that is
// posted to it, with the request's context, until ctx ends. GET /ping shows that the
// process lives.
func serve(ctx context.Context, addr string, pay func(context.Context, Payment) (string, error)) error {
	unwritten := make(chan error, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /payments", func(w http.ResponseWriter, r *http.Request) {
		var p Payment
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			http.Error(w, "that is no payment", http.StatusBadRequest)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client has gone
		word, err := pay(r.Context(), p)
		switch {
		case errors.Is(err, exercise.ErrNotImplemented):
			select {
			case unwritten <- err:
			default:
			}
		case errors.Is(err, ErrDeclined):
			http.Error(w, "declined", http.StatusPaymentRequired)
		case errors.Is(err, ErrOpen):
			http.Error(w, "open", http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadGateway)
		default:
			fmt.Fprintln(w, word)
		}
	})
	server := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-unwritten:
		return err
	case err := <-failed:
		return fmt.Errorf("breaker: serve the checkout: %w", err)
	}
}
