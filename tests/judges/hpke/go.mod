module fabric/judge

go 1.26
