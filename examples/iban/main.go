// Command bootstrap checks an IBAN (ISO 13616). It is an AWS Lambda function in Go, on
// AWS's own library, behind a function URL. Nothing in it knows of Casemate.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log"
	"net/http"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

func main() { lambda.Start(handle) }

type result struct {
	Valid   bool   `json:"valid"`
	Country string `json:"country,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func handle(_ context.Context, event events.LambdaFunctionURLRequest) (events.LambdaFunctionURLResponse, error) {
	body := []byte(event.Body)
	if event.IsBase64Encoded {
		var err error
		if body, err = base64.StdEncoding.DecodeString(event.Body); err != nil {
			return answer(http.StatusBadRequest, result{Reason: "the body is not base64"})
		}
	}
	var request struct {
		IBAN string `json:"iban"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return answer(http.StatusBadRequest, result{Reason: "the body is not JSON"})
	}
	r := check(request.IBAN)
	log.Printf("an IBAN of %q, valid: %v", r.Country, r.Valid)
	return answer(http.StatusOK, r)
}

func answer(status int, r result) (events.LambdaFunctionURLResponse, error) {
	b, err := json.Marshal(r)
	return events.LambdaFunctionURLResponse{
		StatusCode: status, Headers: map[string]string{"content-type": "application/json"}, Body: string(b),
	}, err
}

// check moves the first four characters to the end, reads letters as numbers from 10 on,
// and takes the remainder of 97, which must be 1.
func check(iban string) result {
	s := strings.ToUpper(strings.ReplaceAll(iban, " ", ""))
	if len(s) < 15 || len(s) > 34 {
		return result{Reason: "an IBAN has 15 to 34 characters"}
	}
	remainder := 0
	for _, c := range s[4:] + s[:4] {
		switch {
		case c >= '0' && c <= '9':
			remainder = (remainder*10 + int(c-'0')) % 97
		case c >= 'A' && c <= 'Z':
			remainder = (remainder*100 + int(c-'A') + 10) % 97
		default:
			return result{Reason: "an IBAN has letters and digits alone"}
		}
	}
	if remainder != 1 {
		return result{Reason: "the check digits do not fit"}
	}
	return result{Valid: true, Country: s[:2]}
}
