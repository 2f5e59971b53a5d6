// Package lambdas tests that functions written for AWS Lambda, Google Cloud Functions,
// Cloud Run and Azure Functions run unmodified. Each folder of testdata is one function
// as its provider's documentation teaches to write it, with the lock file of its
// packages, a casemate.yaml, and in test.json the requests it is asked and the answers
// it must give: the form of the examples.
//
// One test packs each function twice and compares; the other deploys them all to a node
// by the casemate program and calls them over HTTPS. Nothing imports this package.
package lambdas
