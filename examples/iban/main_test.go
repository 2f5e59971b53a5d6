package main

import "testing"

// The examples of the registry of ISO 13616.
func TestCheck(t *testing.T) {
	for iban, want := range map[string]bool{
		"DE89 3704 0044 0532 0130 00": true, "GB29NWBK60161331926819": true, "fr1420041010050500013m02606": true,
		"DE89 3704 0044 0532 0130 01": false, "DE98 3704 0044 0532 0130 00": false, "": false, "GB29-NWBK-6016-1331": false,
	} {
		if got := check(iban); got.Valid != want {
			t.Errorf("%q: %+v", iban, got)
		}
	}
}
