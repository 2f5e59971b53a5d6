// Command handler says how much of what to order again. It is an Azure Functions custom
// handler: the host posts an invocation as JSON to /reorder and takes back what the
// output bindings get. Nothing in it knows of Casemate.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
)

// invocation is what the host posts.
type invocation struct {
	Data struct {
		Req struct {
			Method string
			Body   string
		} `json:"req"`
	}
}

// result is what the host takes back.
type result struct {
	Outputs map[string]any
	Logs    []string
}

type stock struct {
	SKU      string `json:"sku"`
	OnHand   int    `json:"onHand"`
	DailyUse int    `json:"dailyUse"`
	LeadDays int    `json:"leadDays"`
}

func main() {
	http.HandleFunc("POST /reorder", func(w http.ResponseWriter, r *http.Request) {
		var in invocation
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, "the invocation is not JSON", http.StatusBadRequest)
			return
		}
		status, body, note := answer(in.Data.Req.Body)
		w.Header().Set("content-type", "application/json")
		err := json.NewEncoder(w).Encode(result{
			Outputs: map[string]any{"res": map[string]any{
				"statusCode": status, "headers": map[string]string{"content-type": "application/json"}, "body": body,
			}},
			Logs: []string{note},
		})
		if err != nil {
			log.Printf("answering: %v", err)
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT"), nil))
}

// answer gives a status, a body as JSON, and a line for the log.
func answer(body string) (int, string, string) {
	var items []stock
	if err := json.Unmarshal([]byte(body), &items); err != nil {
		return http.StatusBadRequest, `{"error":"the body is not a list of stock"}`, "refused: not a list of stock"
	}
	orders := map[string]int{}
	for _, s := range items {
		if n := quantity(s); n > 0 {
			orders[s.SKU] = n
		}
	}
	b, err := json.Marshal(map[string]any{"orders": orders})
	if err != nil {
		return http.StatusInternalServerError, `{"error":"internal"}`, err.Error()
	}
	return http.StatusOK, string(b), fmt.Sprintf("%d of %d to order", len(orders), len(items))
}

// quantity brings stock back to two lead times of use, once it is below one.
func quantity(s stock) int {
	point := s.DailyUse * s.LeadDays
	if s.OnHand >= point {
		return 0
	}
	return 2*point - s.OnHand
}
