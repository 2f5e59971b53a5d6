module ami

go 1.26

require github.com/genuinetools/amicontained v0.4.9
