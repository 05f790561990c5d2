variable "region" {
  type    = string
  default = "us-east-2"
}

variable "away_region" {
  type    = string
  default = "us-west-2"
}

variable "node_version" {
  type = string
}

variable "domain" {
  type    = string
  default = null
}

variable "zone_id" {
  type    = string
  default = null
}

variable "alarm_emails" {
  type    = list(string)
  default = []
}

variable "ssh_from" {
  type    = list(string)
  default = []
}
