module github.com/fairwaynet/fairway/test/cluster/modules/cni

go 1.26

require github.com/containernetworking/plugins v1.9.1
