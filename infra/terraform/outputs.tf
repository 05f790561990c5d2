output "url" {
  description = "Where clients find the API."
  value       = local.url
}

output "electrum" {
  description = "Name of the network balancer, for Electrum over TLS and P2P."
  value       = one(module.nlb[*].dns_name)
}

output "group" {
  description = "Auto-scaling group of the nodes."
  value       = one(module.group[*].group)
}

output "instance" {
  description = "The single node."
  value       = one(module.single[*].instance_id)
}

output "buckets" {
  value = merge(module.storage.buckets, { for bucket in module.web_app[*].bucket : "web" => bucket })
}

output "distributions" {
  description = "CloudFront distributions, for invalidations."
  value = merge(
    { for id in module.cdn[*].distribution_id : "api" => id },
    { for id in module.web_app[*].distribution_id : "web" => id },
  )
}

output "cluster" {
  description = "Kubernetes cluster; for the chart, with the target group of the balancer."
  value       = { for name in module.eks[*].name : "name" => name }
}

output "target_group" {
  description = "For the TargetGroupBinding of the chart."
  value       = one(module.alb_dns[*].target_group)
}

output "database" {
  value = one(module.data_tier[*].database)
}

output "cache" {
  value = one(module.data_tier[*].cache)
}
