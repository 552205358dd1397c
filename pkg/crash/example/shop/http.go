package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
)

// order is what a client sends. It chooses the ID, so that it can send the order
// again.
type order struct {
	ID    string `json:"id"`
	Cents int64  `json:"cents"`
}

// placeFunc stores an order and has it announced. It returns false when it knows
// the order already.
type placeFunc func(context.Context, order) (isNew bool, err error)

// handler answers POST /orders: 201 for a new order, 200 for one that is known.
func handler(place placeFunc) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		var o order
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil || o.ID == "" || o.Cents <= 0 {
			http.Error(w, "an order has an id and a price in cents", http.StatusBadRequest)
			return
		}
		isNew, err := place(r.Context(), o)
		switch {
		case err != nil:
			log.Printf("order %s: %v", o.ID, err)
			http.Error(w, "not placed, try again", http.StatusServiceUnavailable)
		case isNew:
			w.WriteHeader(http.StatusCreated)
		default:
			w.WriteHeader(http.StatusOK)
		}
	})
	return mux
}
