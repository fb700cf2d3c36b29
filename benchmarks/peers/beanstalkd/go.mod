module jobwire/benchmarks/peers/beanstalkd

go 1.25
