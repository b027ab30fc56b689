module meshgate.dev/fuzz/readers/go

go 1.22
