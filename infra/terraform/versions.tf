# State lies in S3, one object an environment, locked by S3 itself. A backend takes no
# variables, so `./run` gives it the bucket (backend.hcl) and the key.

terraform {
  required_version = ">= 1.11"
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

provider "aws" {
  region = var.region
  default_tags {
    tags = { project = "pulse-node", environment = var.environment, managed_by = "terraform" }
  }
}
