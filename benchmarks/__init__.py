"""The tuner against its peers, in the stories of the fleet model: `make bench`."""
