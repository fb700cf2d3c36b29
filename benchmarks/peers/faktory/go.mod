module jobwire/benchmarks/peers/faktory

go 1.25
