module github.com/casemate-dev/casemate/connector

go 1.26.0
