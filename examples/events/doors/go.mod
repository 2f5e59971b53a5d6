module doors

go 1.24
