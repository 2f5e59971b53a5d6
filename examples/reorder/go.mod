module reorder

go 1.24
