// One Event Hub for both routes, with a consumer group for the daemon alone, and who may send and receive.

@description('Region of the namespace.')
param location string

@description('Name of the namespace; a part of its host name.')
@minLength(6)
@maxLength(50)
param namespaceName string

@description('Name of the Event Hub.')
@minLength(1)
@maxLength(256)
param hubName string

@description('Name of the consumer group.')
@minLength(1)
@maxLength(50)
param consumerGroupName string

@description('Tier. Basic has no consumer groups of one\'s own.')
@allowed([
  'Standard'
  'Premium'
])
param skuName string

@description('Throughput units (Standard) or processing units (Premium).')
@minValue(1)
@maxValue(40)
param capacity int

@description('Partitions of the Event Hub. Standard never changes them again.')
@minValue(1)
@maxValue(100)
param partitionCount int

@description('Days for which events are kept: the time there is to mend anything before changes are lost.')
@minValue(1)
@maxValue(90)
param retentionDays int

@description('Whether Standard adds throughput units by itself, up to maximumThroughputUnits.')
param autoInflate bool

@description('Where autoInflate ends.')
@minValue(1)
@maxValue(40)
param maximumThroughputUnits int

@description('Object id of the daemon\'s identity.')
param receiverPrincipalId string

@description('Object id of the identity that the IoT hub routes with.')
param senderPrincipalId string

@description('Tags of the namespace.')
param tags object

var roles = loadJsonContent('../roles.json')
var inflates = autoInflate && skuName == 'Standard'

resource namespace 'Microsoft.EventHub/namespaces@2024-01-01' = {
  name: namespaceName
  location: location
  tags: tags
  sku: {
    name: skuName
    tier: skuName
    capacity: capacity
  }
  properties: {
    // Both ends come with tokens: keys would be a second way in.
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    publicNetworkAccess: 'Enabled'
    isAutoInflateEnabled: inflates
    maximumThroughputUnits: inflates ? maximumThroughputUnits : 0
  }
}

// Both kinds of event of a device share a partition, and so have an order, only where they share the Event Hub.
resource hub 'Microsoft.EventHub/namespaces/eventhubs@2024-01-01' = {
  parent: namespace
  name: hubName
  properties: {
    partitionCount: partitionCount
    retentionDescription: {
      // Compaction would remove events by itself, which looks like loss.
      cleanupPolicy: 'Delete'
      retentionTimeInHours: retentionDays * 24
    }
  }
}

// Event Hubs allows five readers per partition and group: nobody else should be one of them.
resource group 'Microsoft.EventHub/namespaces/eventhubs/consumergroups@2024-01-01' = {
  parent: hub
  name: consumerGroupName
  properties: {}
}

resource receiver 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: hub
  name: guid(hub.id, receiverPrincipalId, roles['Azure Event Hubs Data Receiver'])
  properties: {
    principalId: receiverPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['Azure Event Hubs Data Receiver'])
  }
}

resource sender 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: hub
  name: guid(hub.id, senderPrincipalId, roles['Azure Event Hubs Data Sender'])
  properties: {
    principalId: senderPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles['Azure Event Hubs Data Sender'])
  }
}

@description('Fully qualified name of the namespace.')
output namespaceHost string = split(replace(namespace.properties.serviceBusEndpoint, 'https://', ''), ':')[0]

@description('Name of the Event Hub.')
output hubName string = hub.name

@description('Name of the consumer group.')
output consumerGroupName string = group.name
