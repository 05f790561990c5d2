# The environment "production". State lies in S3, locked by S3 itself; the bucket is made once, by
# hand (infra/README.md), and given at init: terraform init -backend-config=backend.hcl

terraform {
  required_version = ">= 1.11"
  backend "s3" {
    key          = "pulse/production.tfstate"
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
    tags = local.tags
  }
}

# Where copies of backups lie.
provider "aws" {
  alias  = "away"
  region = var.away_region
  default_tags {
    tags = local.tags
  }
}

locals {
  tags = { project = "pulse-node", environment = "production", managed_by = "terraform" }
}

module "pulse" {
  source       = "../../modules/pulse"
  environment  = "production"
  region       = var.region
  node_version = var.node_version
  domain       = var.domain
  zone_id      = var.zone_id
  alarm_emails = var.alarm_emails
  ssh_from     = var.ssh_from
  providers = {
    aws      = aws
    aws.away = aws.away
  }
}

output "url" {
  value = module.pulse.url
}

output "electrum" {
  value = module.pulse.electrum
}

output "buckets" {
  value = module.pulse.buckets
}
